//! One field of a calendar expression, such as `8..18/2,22`: which numbers it takes.

/// Which numbers a field takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    runs: Vec<Run>,
}

/// `from`, and each `step` after it up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: u16,
    to: u16,
    step: u16,
}

/// What a field is called, with its least and greatest number.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its name, for errors.
    pub name: &'static str,
    /// Least number.
    pub min: u16,
    /// Greatest number.
    pub max: u16,
}

impl Field {
    /// All numbers.
    pub fn all(bounds: Bounds) -> Self {
        Self { runs: vec![Run { from: bounds.min, to: bounds.max, step: 1 }] }
    }

    /// One number.
    pub fn just(number: u16) -> Self {
        Self { runs: vec![Run { from: number, to: number, step: 1 }] }
    }

    /// `*`, or parts with commas between: `7`, `1..5`, `0/15` (from 0, every 15), `1..20/5`.
    pub fn parse(text: &str, bounds: Bounds) -> Result<Self, String> {
        let runs = text.split(',').map(|part| Run::parse(part, bounds)).collect::<Result<_, _>>()?;
        Ok(Self { runs })
    }

    /// Whether it takes this number.
    pub fn takes(&self, number: u16) -> bool {
        self.runs.iter().any(|run| run.takes(number))
    }

    /// The numbers that it takes, ascending.
    pub fn numbers(&self, bounds: Bounds) -> impl Iterator<Item = u16> + '_ {
        (bounds.min..=bounds.max).filter(|number| self.takes(*number))
    }

    /// The greatest number that it may take.
    pub fn last(&self) -> u16 {
        self.runs.iter().map(|run| run.to).max().unwrap_or(0)
    }
}

impl Run {
    fn parse(part: &str, bounds: Bounds) -> Result<Self, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (from, to) = match range.split_once("..") {
            _ if range == "*" => (bounds.min, bounds.max),
            Some((from, to)) => (number(from, bounds)?, number(to, bounds)?),
            None if step.is_some() => (number(range, bounds)?, bounds.max),
            None => (number(range, bounds)?, number(range, bounds)?),
        };
        if from > to {
            return Err(format!("{}s {range:?} end before they begin", bounds.name));
        }
        let step = match step.map(str::parse) {
            None => 1,
            Some(Ok(step)) if step > 0 => step,
            Some(_) => return Err(format!("{part:?}: after the / stands a number above 0")),
        };
        Ok(Self { from, to, step })
    }

    fn takes(self, number: u16) -> bool {
        (self.from..=self.to).contains(&number) && (number - self.from).is_multiple_of(self.step)
    }
}

fn number(text: &str, Bounds { name, min, max }: Bounds) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no {name}, which is a number from {min} to {max}")),
    }
}
