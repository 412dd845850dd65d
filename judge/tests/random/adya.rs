//! The crate `adya`, another's rendering of Elle, judges the same histories.

use crate::database::{Holds, Plan, plans, run};
use adya::{Opts, Valid, Workload, check};
use proptest::prelude::*;
use trandb_judge::{Level, judge};

const MODELS: [(Level, &str); 4] = [
    (Level::ReadCommitted, "read-committed"),
    (Level::Snapshot, "strong-snapshot-isolation"),
    (Level::Serializable, "serializable"),
    (Level::StrictSerializable, "strict-serializable"),
];

fn agree(plan: Plan) -> Result<(), TestCaseError> {
    let history = run(plan.clone());
    let mut text = Vec::new();
    history.write(&mut text).expect("into memory");
    let text = String::from_utf8(text).expect("text");
    let theirs = adya::History::from_json(&text).expect("their format");
    let workload = if plan.holds == Holds::Lists { Workload::ListAppend } else { Workload::RwRegister };
    for (level, model) in MODELS {
        let options = Opts { models: vec![model.to_owned()], wfr_keys: true, ..Opts::default() };
        let report = check(&theirs, workload, &options);
        let ours = judge(&history, level);
        let agreed = match report.valid {
            // It infers less from registers: brute force agrees with us.
            Valid::True => ours.is_empty() || plan.holds == Holds::Registers,
            Valid::False => !ours.is_empty(),
            Valid::Unknown => true,
        };
        prop_assert!(
            agreed,
            "{} {:?}\nours {:?}\ntheirs {:?}\n{}",
            level,
            plan.keeps,
            ours,
            report.anomalies,
            text
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same(
        plan in plans(40, prop::sample::select(vec![Holds::Lists, Holds::Registers])),
    ) {
        agree(plan)?;
    }
}
