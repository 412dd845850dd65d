//! Laying file, environment and flags over the defaults.

use super::error::ConfigError;
use super::secret::Secret;
use super::sections::Config;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use toml::de::DeTable;
use toml::{Table, Value};

/// What variables of ours start with.
const PREFIX: &str = "TRANDB_";

/// What separates section and key in a variable.
const SEPARATOR: &str = "__";

/// Distance of each door's port from the port base.
const DOORS: [(&str, u16); 3] = [("native", 0), ("peer", 1), ("http", 2)];

/// Where a configuration comes from, weakest first.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// The file, if one is named.
    pub file: Option<PathBuf>,
    /// The process's environment; variables that are not ours are skipped.
    pub environment: BTreeMap<String, String>,
    /// First port of this node: replaces the ports, not the hosts, of all doors. Zero: free ports.
    pub port_base: Option<u16>,
    /// Flags, in the order in which they are to take effect.
    pub flags: Vec<Setting>,
}

impl Sources {
    /// Takes the process's own environment; variables that are not text are none of ours.
    #[must_use]
    pub fn with_process_environment(mut self) -> Self {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        self.environment = std::env::vars_os().filter_map(text).collect();
        self
    }
}

/// One value from a flag or variable, still text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What the person wrote: `--http`, `TRANDB_HTTP__ADDR`.
    pub origin: String,
    /// The dotted key: `http.addr`.
    pub key: String,
    /// Lists are separated by commas.
    pub value: String,
}

impl Setting {
    /// A flag's value.
    pub fn new(origin: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { origin: origin.into(), key: key.into(), value: value.into() }
    }

    /// A variable's value, if the variable is ours.
    fn from_variable(name: &str, value: &str) -> Option<Self> {
        let (section, key) = name.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
        let key = format!("{section}.{}", key.replace(SEPARATOR, ".")).to_lowercase();
        Some(Self::new(name, key, value))
    }
}

impl Config {
    /// Merges all layers and checks the result.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value that cannot be, or a broken rule.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let file = match &sources.file {
            Some(path) => {
                let error =
                    |error| ConfigError::Unreadable { what: "configuration file", path: path.clone(), error };
                let text = std::fs::read_to_string(path).map_err(error)?;
                parse(&text, &path.display().to_string())?
            }
            None => Table::new(),
        };
        let mut layers = Layers::new(file);
        for (name, value) in &sources.environment {
            if let Some(setting) = Setting::from_variable(name, value) {
                layers.set(&setting)?;
            }
        }
        if let Some(base) = sources.port_base {
            layers.set_ports(base)?;
        }
        for setting in &sources.flags {
            layers.set(setting)?;
        }
        let mut config = layers.config;
        if !config.peer.secret_file.as_os_str().is_empty() {
            config.peer.secret_in_file()?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Reads a file's text and checks it; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        let config = Layers::new(parse(text, name)?).config;
        config.validate()?;
        Ok(config)
    }

    /// All keys with their values as TOML, secrets hidden.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every section is plain data")
    }
}

impl super::PeerConfig {
    fn secret_in_file(&mut self) -> Result<(), ConfigError> {
        let path = &self.secret_file;
        if !self.secret.is_empty() {
            return Err(super::Violation::SecretTwice { path: path.clone() }.into());
        }
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            what: "secret file",
            path: path.clone(),
            error,
        })?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(super::Violation::SecretFileEmpty { path: path.clone() }.into());
        }
        self.secret = Secret::new(secret);
        Ok(())
    }
}

/// The values set so far, above the defaults.
struct Layers {
    /// Every key with its default: the guide to what a text must be read as.
    guide: Table,
    set: Table,
    /// What `set` comes to, kept up to date so that a value that cannot be is blamed on who set it.
    config: Config,
}

impl Layers {
    fn new(file: Table) -> Self {
        let guide = Table::try_from(Config::default()).expect("every section is plain data");
        let config = file.clone().try_into().expect("parsed as a configuration before");
        Self { guide, set: file, config }
    }

    fn set(&mut self, setting: &Setting) -> Result<(), ConfigError> {
        let Setting { origin, key, value } = setting;
        let fail =
            |message: String| ConfigError::Setting { origin: origin.clone(), key: key.clone(), message };
        let (section, name) = key.split_once('.').unwrap_or((key.as_str(), ""));
        let Some(default) =
            self.guide.get(section).and_then(Value::as_table).and_then(|section| section.get(name))
        else {
            return Err(fail("there is no such key".into()));
        };
        let value = read_as(default, value).map_err(fail)?;
        let Value::Table(section) = self.set.entry(section).or_insert_with(|| Value::Table(Table::new()))
        else {
            unreachable!("the guide has only tables at the top, and the file was checked against it")
        };
        section.insert(name.to_string(), value);
        // A secret and the file it lies in are one setting: the later layer's way of giving it wins.
        match name.strip_suffix("_file") {
            Some(secret) => section.remove(secret),
            None => section.remove(&format!("{name}_file")),
        };
        self.config =
            self.set.clone().try_into().map_err(|error: toml::de::Error| fail(error.message().into()))?;
        Ok(())
    }

    fn set_ports(&mut self, base: u16) -> Result<(), ConfigError> {
        for (section, distance) in DOORS {
            let key = format!("{section}.addr");
            let addr = match section {
                "native" => &self.config.native.addr,
                "peer" => &self.config.peer.addr,
                _ => &self.config.http.addr,
            };
            let host = addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host);
            let port = if base == 0 { Some(0) } else { base.checked_add(distance) };
            let Some(port) = port else {
                return Err(ConfigError::Setting {
                    origin: "--port-base".into(),
                    key,
                    message: format!("{base} + {distance} is no port"),
                });
            };
            let value = format!("{host}:{port}");
            self.set(&Setting::new("--port-base", key, value))?;
        }
        Ok(())
    }
}

/// Reads a text as the kind of value that a key's default is.
fn read_as(default: &Value, text: &str) -> Result<Value, String> {
    Ok(match default {
        Value::Integer(_) => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return Err(format!("\"{text}\" is no whole number")),
        },
        Value::Boolean(_) => match text {
            "true" | "1" => Value::Boolean(true),
            "false" | "0" => Value::Boolean(false),
            _ => return Err(format!("\"{text}\" is neither true nor false")),
        },
        Value::Array(_) => Value::Array(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect(),
        ),
        _ => Value::from(text),
    })
}

/// Parses a file's text and checks its keys and kinds of values, not yet the rules between them.
fn parse(text: &str, name: &str) -> Result<Table, ConfigError> {
    let fail = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let key = DeTable::parse(text).map_or_else(|_| String::new(), |table| key_at(table.get_ref(), at));
        let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::File { file: name.into(), line, key, message: error.message().into() }
    };
    toml::from_str::<Config>(text).map_err(|error| fail(&error))?;
    toml::from_str(text).map_err(|error| fail(&error))
}

/// The dotted key that a position of the text belongs to: the last one that starts at or before it, which
/// is the innermost since a key precedes what it holds.
fn key_at(table: &DeTable<'_>, position: usize) -> String {
    let mut path = Vec::new();
    let mut table = Some(table);
    while let Some(inner) = table.take() {
        let nearest = inner
            .iter()
            .filter(|(key, _)| key.span().start <= position)
            .max_by_key(|(key, _)| key.span().start);
        if let Some((key, value)) = nearest {
            path.push(key.get_ref().to_string());
            table = value.get_ref().as_table();
        }
    }
    path.join(".")
}
