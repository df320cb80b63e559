//! The table.

use std::fmt;

/// One measure on all servers.
pub struct Row {
    /// What was measured, with its unit.
    pub measure: String,
    /// Ours.
    pub ours: f64,
    /// The others, by name.
    pub others: Vec<(String, f64)>,
    /// What has to hold.
    pub bar: Bar,
}

/// What has to hold.
#[derive(Clone, Copy)]
pub enum Bar {
    /// At most the best of redis-server and valkey-server, but for the spread of two equal servers.
    AtMostOthers,
    /// At least the best of them, but for the spread.
    AtLeastOthers,
    /// At most this.
    AtMost(f64),
    /// Nothing: an aim, told in the measure's name.
    Aim,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Row {
    fn other(&self, name: &str) -> Option<f64> {
        self.others
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| *value)
    }

    /// How much two equal servers differ.
    fn spread(&self) -> f64 {
        match (self.other("redis"), self.other("redis again")) {
            (Some(one), Some(two)) => (one / two).max(two / one),
            _ => 1.0,
        }
    }

    fn rivals(&self) -> impl Iterator<Item = f64> {
        self.others
            .iter()
            .filter(|(name, _)| name != "bare socket")
            .map(|(_, value)| *value)
    }

    fn holds(&self) -> Option<bool> {
        let best = |better: fn(f64, f64) -> f64| self.rivals().reduce(better).unwrap_or(self.ours);
        match self.bar {
            Bar::AtMostOthers => Some(self.ours <= best(f64::min) * self.spread()),
            Bar::AtLeastOthers => Some(self.ours * self.spread() >= best(f64::max)),
            Bar::AtMost(most) => Some(self.ours <= most),
            Bar::Aim => None,
        }
    }
}

impl Report {
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}: {:.1}", row.measure, row.ours);
        self.rows.push(row);
    }

    pub fn falls_short(&self) -> bool {
        self.rows.iter().any(|row| row.holds() == Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "| measure | replicator | others (ratio to ours) | bar |\n|---|---|---|---|"
        )?;
        // What has to hold comes first.
        let (must, aims): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|row| row.holds().is_some());
        for row in must.into_iter().chain(aims) {
            let others: Vec<String> = row
                .others
                .iter()
                .map(|(name, value)| format!("{name} {value:.1} ({:.2})", value / row.ours))
                .collect();
            let verdict = match row.holds() {
                Some(true) => "holds",
                Some(false) => "**falls short**",
                None => "aim",
            };
            writeln!(
                out,
                "| {} | {:.1} | {} | {verdict} |",
                row.measure,
                row.ours,
                others.join(", ")
            )?;
        }
        Ok(())
    }
}
