//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::median;

/// The figures to reach.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bar {
    /// Below it something is wrong.
    pub(super) at_least: f64,
    /// What it could be.
    pub(super) stretch: f64,
    /// Whether less is better.
    pub(super) lower_is_better: bool,
}

impl Bar {
    /// More is better.
    pub(super) const fn above(at_least: f64, stretch: f64) -> Option<Bar> {
        Some(Bar { at_least, stretch, lower_is_better: false })
    }

    /// Less is better.
    pub(super) const fn below(at_least: f64, stretch: f64) -> Option<Bar> {
        Some(Bar { at_least, stretch, lower_is_better: true })
    }

    fn verdict(self, value: f64) -> Verdict {
        let reaches = |bar: f64| if self.lower_is_better { value <= bar } else { value >= bar };
        match (reaches(self.stretch), reaches(self.at_least)) {
            (true, _) => Verdict::Stretch,
            (_, true) => Verdict::Reached,
            _ => Verdict::Missed,
        }
    }
}

/// How a figure compares with its bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It reaches the far bar.
    Stretch,
    /// It reaches the near bar.
    Reached,
    /// It does not.
    Missed,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// Of which scenario.
    pub(super) scenario: &'static str,
    /// What.
    pub(super) name: String,
    /// The median of the samples.
    pub(super) value: f64,
    /// In what; empty for ratios and counts.
    pub(super) unit: &'static str,
    /// Each run's.
    pub(super) samples: Vec<f64>,
    /// What it is compared with.
    pub(super) bar: Option<Bar>,
    /// How it compares.
    pub(super) verdict: Option<Verdict>,
}

/// Everything measured in one run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Which Gatepost.
    pub(super) version: &'static str,
    /// Cores this process may use.
    pub(super) cores: usize,
    /// The figures.
    pub(super) figures: Vec<Figure>,
    /// CPU seconds of the server by scenario and name of thread.
    pub(super) threads: BTreeMap<&'static str, BTreeMap<String, f64>>,
    /// What went wrong: events lost, requests refused, errors in the server's log.
    pub(super) problems: Vec<String>,
}

impl Report {
    /// What the columns of [`Report::rows`] are.
    pub const HEADER: [&str; 7] = ["scenario", "figure", "value", "runs", "at least", "stretch", ""];

    /// Adds a figure from its samples; without samples there is none.
    pub(super) fn add(
        &mut self,
        scenario: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        bar: Option<Bar>,
    ) {
        let samples: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        if samples.is_empty() {
            return;
        }
        let value = median(&samples);
        let verdict = bar.map(|bar| bar.verdict(value));
        self.figures.push(Figure { scenario, name: name.into(), value, unit, samples, bar, verdict });
    }

    /// Notes what went wrong.
    pub(super) fn problem(&mut self, scenario: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{scenario}: {what}"));
    }

    /// Adds up CPU by thread.
    pub(super) fn threads(&mut self, scenario: &'static str, spent: &BTreeMap<String, f64>) {
        let sums = self.threads.entry(scenario).or_default();
        for (name, cpu) in spent {
            *sums.entry(name.clone()).or_insert(0.0) += cpu;
        }
    }

    /// What went wrong.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The figures for people, under [`Report::HEADER`].
    pub fn rows(&self) -> impl Iterator<Item = [String; Report::HEADER.len()]> {
        self.figures.iter().map(|figure| {
            let sign = figure.bar.map_or("", |bar| if bar.lower_is_better { "≤ " } else { "≥ " });
            let bar = |value: fn(&Bar) -> f64| {
                figure.bar.as_ref().map(|bar| format!("{sign}{}", number(value(bar)))).unwrap_or_default()
            };
            let verdict = match figure.verdict {
                Some(Verdict::Stretch) => "stretch",
                Some(Verdict::Reached) => "ok",
                Some(Verdict::Missed) => "MISSED",
                None => "",
            };
            [
                figure.scenario.to_owned(),
                figure.name.clone(),
                format!("{} {}", number(figure.value), figure.unit).trim().to_owned(),
                spread(&figure.samples),
                bar(|bar| bar.at_least),
                bar(|bar| bar.stretch),
                verdict.to_owned(),
            ]
        })
    }

    /// What there is to say beside the figures, a line each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let spent = self.threads.iter().filter_map(|(scenario, threads)| {
            let all: f64 = threads.values().sum();
            let shares = threads.iter().map(|(name, cpu)| format!("{name} {:.0} %", cpu / all * 100.0));
            (all > 0.0).then(|| format!("server CPU in {scenario}: {}", shares.collect::<Vec<_>>().join(", ")))
        });
        spent.chain(self.problems.iter().map(|problem| format!("PROBLEM: {problem}")))
    }
}

/// The smallest and the largest sample, when there are several.
fn spread(samples: &[f64]) -> String {
    match samples.len() {
        0 | 1 => String::new(),
        _ => {
            let min = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let max = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!("{}…{}", number(min), number(max))
        }
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let mut out = String::from(sign);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else if size >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_judged_by_their_bar() {
        let mut report = Report::default();
        report.add("drain", "ratio", "", &[0.5, 0.1, 0.45], Bar::above(0.4, 0.75));
        report.add("drain", "wait", "ms", &[1.0], Bar::below(5.0, 1.5));
        report.add("drain", "wait", "ms", &[9.0], Bar::below(5.0, 1.5));
        report.add("drain", "unknown", "", &[f64::NAN], Bar::below(5.0, 1.5));
        let verdicts: Vec<_> = report.figures.iter().map(|figure| (figure.value, figure.verdict)).collect();
        assert_eq!(
            verdicts,
            [(0.45, Some(Verdict::Reached)), (1.0, Some(Verdict::Stretch)), (9.0, Some(Verdict::Missed))]
        );
        let rows: Vec<_> = report.rows().collect();
        assert_eq!(rows[0], ["drain", "ratio", "0.45", "0.10…0.50", "≥ 0.40", "≥ 0.75", "ok"]);
        assert_eq!(rows[2], ["drain", "wait", "9 ms", "", "≤ 5", "≤ 1.50", "MISSED"]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [
            (1234567.8, "1,234,568"),
            (-1500.0, "-1,500"),
            (999.6, "1000"),
            (12.34, "12.3"),
            (0.126, "0.13"),
            (3.0, "3"),
        ] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn what_there_is_to_say_is_said() {
        let mut report = Report::default();
        report.problem("kill", "3 events were lost");
        report
            .threads("kill", &BTreeMap::from([("gatepost-store".to_owned(), 3.0), ("gatepost-lane".to_owned(), 1.0)]));
        report.threads("noisy", &BTreeMap::from([("gatepost-store".to_owned(), 0.0)]));
        let remarks: Vec<_> = report.remarks().collect();
        assert_eq!(
            remarks,
            ["server CPU in kill: gatepost-lane 25 %, gatepost-store 75 %", "PROBLEM: kill: 3 events were lost"]
        );
    }
}
