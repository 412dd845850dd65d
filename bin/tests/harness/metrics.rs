//! What nodes say of themselves in Prometheus's text format.

use super::Node;

impl Node {
    /// The samples of that name: what is said of each, in braces, and its value.
    pub(crate) fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let text = self.http("GET", "/metrics", &[], b"").text();
        let sample = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (labels, value) = rest.rsplit_once(' ').expect("a sample has a value");
            Some((labels.to_owned(), value.parse().expect("a number")))
        };
        text.lines().filter_map(sample).collect()
    }

    /// The sum of the samples of that name with all those labels: zero when there are none.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let is_wanted = |said: &str| labels.iter().all(|label| said.contains(label));
        self.samples(name).iter().filter(|(said, _)| is_wanted(said)).map(|(_, value)| value).sum()
    }
}
