//! Each anomaly by name, in the smallest history that shows it, and which levels allow it.

use trandb_judge::{History, Level, anomalies, judge};

/// A history from lines like `1 ok r x 1,2; append y 3`: a process, how its transaction ends, and its steps. All begin
/// before the first ends, unless a line `-` separates them.
fn history(text: &str) -> History {
    let mut lines = Vec::new();
    for group in text.split("\n-\n") {
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for line in group.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().expect("three of them");
            let (process, end, steps) = (word(), word(), word());
            let steps: Vec<String> = steps.split("; ").map(step).collect();
            let steps = steps.join(",");
            begins.push(format!(r#"{{"type":"invoke","process":{process},"value":[{steps}]}}"#));
            ends.push(format!(r#"{{"type":"{end}","process":{process},"value":[{steps}]}}"#));
        }
        lines.extend(begins);
        lines.extend(ends);
    }
    History::read(lines.join("\n").as_bytes()).expect("a history")
}

fn step(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["r", key] => format!(r#"["r","{key}",null]"#),
        ["r", key, value] if value.contains(',') => {
            let numbers: Vec<&str> = value.split(',').filter(|number| !number.is_empty()).collect();
            format!(r#"["r","{key}",[{}]]"#, numbers.join(","))
        }
        [what, key, value] => format!(r#"["{what}","{key}",{value}]"#),
        _ => panic!("no step: {text:?}"),
    }
}

/// The names of what is found, and the strongest levels of which the history still is.
fn found(text: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let history = history(text);
    let names = anomalies(&history).into_iter().map(|anomaly| anomaly.name).collect();
    let levels =
        Level::ALL.into_iter().filter(|level| judge(&history, *level).is_empty()).map(Level::name).collect();
    (names, levels)
}

const ALL: [&str; 4] = ["read_committed", "snapshot", "serializable", "strict_serializable"];

#[track_caller]
fn check(text: &str, names: &[&str], levels: &[&str]) {
    assert_eq!(found(text), (names.to_vec(), levels.to_vec()), "of {text}");
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    check("0 ok append x 1\n-\n1 ok r x 1,; append x 2\n-\n2 ok r x 1,2", &[], &ALL);
    check("0 ok r a; w a 1; r b; w b 2\n-\n1 ok r a 1; r b 2\n2 fail r a 1; w a 9", &[], &ALL);
    check("0 info append x 1\n1 ok r x 1,\n2 ok r x", &[], &ALL);
}

#[test]
fn dirty_write() {
    check("0 ok append x 1; append y 1\n1 ok append x 2; append y 2\n2 ok r x 1,2; r y 2,1", &["G0"], &[]);
}

#[test]
fn read_of_what_was_refused() {
    check("0 fail append x 1\n1 ok r x 1,", &["G1a"], &[]);
    check("0 fail w x 1\n1 ok r x 1", &["G1a"], &[]);
}

#[test]
fn read_of_the_middle_of_a_transaction() {
    check("0 ok append x 1; append x 2\n1 ok r x 1,", &["G1b", "G-single"], &[]);
}

#[test]
fn read_of_what_came_later() {
    check("0 ok append x 1; r y 1,\n1 ok append y 1; r x 1,", &["G1c"], &[]);
    check("0 ok r x 1\n-\n1 ok w x 1", &["G1c-realtime"], &["read_committed", "serializable"]);
}

#[test]
fn contradictions_within_a_transaction() {
    check("0 ok append x 1; r x\n1 ok r x 1,", &["internal"], &ALL[..1]);
    check("0 ok w x 1; r x 2\n1 ok w x 2", &["internal"], &ALL[..1]);
}

#[test]
fn numbers_out_of_nowhere_and_twice() {
    check("0 ok r x 1,", &["garbage"], &[]);
    check("0 ok append x 1\n1 ok r x 1,1", &["duplicate"], &[]);
    check("0 ok append x 1\n1 ok append x 1", &["duplicate"], &[]);
    check("0 ok append x 1\n1 ok append x 2\n2 ok r x 1,2\n3 ok r x 2,1", &["incompatible-order"], &[]);
}

#[test]
fn lost_update() {
    check("0 ok r x; w x 1\n1 ok r x; w x 2", &["lost-update", "G2"], &ALL[..1]);
    // The first one's number is gone for a reader that came later.
    check(
        "0 ok append x 1\n-\n1 ok append x 2\n-\n2 ok r x 2,",
        &["G0-realtime"],
        &["read_committed", "serializable"],
    );
}

#[test]
fn read_skew() {
    check("0 ok append x 1; append y 1\n1 ok r x 1,; r y\n2 ok r y 1,", &["G-single"], &ALL[..1]);
    check("0 ok r x; w x 1; r y; w y 1\n1 ok r x 1; r y", &["G-single"], &ALL[..1]);
}

#[test]
fn long_fork() {
    check(
        "0 ok append x 1\n1 ok append y 1\n2 ok r x 1,; r y\n3 ok r x; r y 1,",
        &["G-nonadjacent"],
        &ALL[..1],
    );
}

#[test]
fn write_skew() {
    check("0 ok r x; append y 1\n1 ok r y; append x 1\n2 ok r x 1,; r y 1,", &["G2"], &ALL[..2]);
    check("0 ok r x; r y; w y 1\n1 ok r x; r y; w x 1", &["G2"], &ALL[..2]);
}

#[test]
fn a_read_from_the_past() {
    check(
        "0 ok append x 1\n-\n1 ok r x\n2 ok r x 1,",
        &["G-single-realtime"],
        &["read_committed", "serializable"],
    );
}

#[test]
fn registers_of_single_steps() {
    // Neither overwrote what it had read, and yet time tells.
    check("0 ok w x 1\n-\n1 ok w x 2\n-\n2 ok r x 1", &["not-linearizable"], &ALL[..3]);
    check("0 ok w x 1\n1 ok w x 2\n-\n2 ok r x 1\n-\n3 ok r x 2", &["not-linearizable"], &ALL[..3]);
    check("0 ok w x 1\n1 ok w x 2\n-\n2 ok r x 2\n-\n3 ok r x 2", &[], &ALL);
    check("0 info w x 1\n-\n1 ok w x 2\n-\n2 ok r x 2\n-\n3 ok r x 1", &[], &ALL);
}
