//! Reading the arguments of script commands.

use goldenscript::ArgumentConsumer;
use std::error::Error;
use std::str::FromStr;

/// The named argument, if given.
pub(crate) fn optional<T: FromStr>(
    args: &mut ArgumentConsumer<'_>,
    name: &str,
) -> Result<Option<T>, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

/// The named argument.
pub(crate) fn named<T: FromStr>(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<T, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    optional(args, name)?.ok_or_else(|| format!("{name}= is missing").into())
}

/// The next argument without a name.
pub(crate) fn next<T: FromStr>(args: &mut ArgumentConsumer<'_>) -> Result<T, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    Ok(args.next_pos().ok_or("an argument is missing")?.parse()?)
}

/// Numbers joined by commas or slashes, such as `1/2/3`.
pub(crate) fn numbers(text: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    text.split(['/', ',']).map(|number| Ok(number.parse()?)).collect()
}
