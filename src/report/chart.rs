//! Curves as points of an SVG: scales, ticks, and no more points than a screen can show.

use serde::Serialize;

/// Most points of a line; longer ones keep the lowest and the highest value of each stretch.
const MOST_POINTS: usize = 600;
/// Room for the labels of the axes.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// One curve.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// Its name in the legend; empty for none.
    pub(super) label: &'static str,
    /// Its class in the style sheet.
    pub(super) class: &'static str,
    /// What it shows; values that are no numbers are left out.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point is marked and can be pointed at.
    pub(super) marked: bool,
    /// Whether the points are joined.
    pub(super) joined: bool,
}

/// A chart, ready to be drawn.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_title: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) x_ticks: Vec<Tick>,
    pub(super) y_ticks: Vec<Tick>,
    pub(super) lines: Vec<Line>,
    pub(super) bands: Vec<Band>,
    /// Values that are no numbers.
    pub(super) left_out: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) label: &'static str,
    pub(super) class: &'static str,
    /// `x,y x,y …`, or nothing.
    pub(super) points: String,
    pub(super) dots: Vec<Dot>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) title: String,
}

/// A stretch of the vertical axis that is shaded, and a line in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Band {
    pub(super) top: f64,
    pub(super) height: f64,
    pub(super) middle: f64,
}

/// Draws `series` into `size`; nothing where there is no number. `bands` are (low, middle, high) on the vertical axis.
pub(super) fn chart(
    title: impl Into<String>,
    x_title: &'static str,
    size: (f64, f64),
    series: &[Series],
    bands: &[(f64, f64, f64)],
    from_zero: bool,
) -> Option<Chart> {
    let (width, height) = size;
    let mut left_out = 0;
    let clean: Vec<Vec<(f64, f64)>> = series
        .iter()
        .map(|one| {
            let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
            let points: Vec<_> = one.points.iter().filter(finite).copied().collect();
            left_out += one.points.len() - points.len();
            points
        })
        .collect();
    let all = || clean.iter().flatten();
    all().next()?;
    let (x_low, x_high) = bounds(all().map(|point| point.0));
    let of_bands = bands.iter().flat_map(|band| [band.0, band.2]);
    let zero = from_zero.then_some(0.0);
    let (y_low, y_high) = bounds(all().map(|point| point.1).chain(of_bands).chain(zero));
    let y_steps = ticks(y_low, y_high, 5);
    // The axis ends at a tick, so that no curve touches the frame.
    let (y_low, y_high) = (y_low.min(*y_steps.first()?), y_high.max(*y_steps.last()?));
    let (right, bottom) = (width - RIGHT, height - BOTTOM);
    let x_of = |x: f64| round(LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT));
    let y_of = |y: f64| round(bottom - (y - y_low) / (y_high - y_low) * (bottom - TOP));
    let x_steps = ticks(x_low, x_high, 6);
    let inside = x_steps.iter().filter(|x| (x_low..=x_high).contains(*x));
    let lines = series
        .iter()
        .zip(&clean)
        .filter(|(_, points)| !points.is_empty())
        .map(|(one, points)| {
            let shown = thinned(points);
            let coordinates: Vec<String> = shown
                .iter()
                .map(|(x, y)| format!("{},{}", x_of(*x), y_of(*y)))
                .collect();
            Line {
                label: one.label,
                class: one.class,
                points: if one.joined {
                    coordinates.join(" ")
                } else {
                    String::new()
                },
                dots: shown
                    .iter()
                    .filter(|_| one.marked)
                    .map(|(x, y)| Dot {
                        x: x_of(*x),
                        y: y_of(*y),
                        title: format!("{x_title} {x}: {}", number(*y)),
                    })
                    .collect(),
            }
        })
        .collect();
    Some(Chart {
        title: title.into(),
        x_title,
        width,
        height,
        left: LEFT,
        right,
        bottom,
        x_ticks: inside
            .map(|&x| Tick {
                at: x_of(x),
                label: number(x),
            })
            .collect(),
        y_ticks: y_steps
            .iter()
            .map(|&y| Tick {
                at: y_of(y),
                label: number(y),
            })
            .collect(),
        lines,
        bands: bands
            .iter()
            .map(|&(low, middle, high)| Band {
                top: y_of(high),
                height: round(y_of(low) - y_of(high)),
                middle: y_of(middle),
            })
            .collect(),
        left_out,
    })
}

/// Lowest and highest, apart from one another.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high > low {
        return (low, high);
    }
    let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
    (low - room, high + room)
}

/// About `count` round numbers from just below `low` to just above `high`.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// At most [`MOST_POINTS`]: the lowest and the highest of each stretch, so that no spike is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let low = chunk.iter().min_by(by_value).copied();
            let high = chunk.iter().max_by(by_value).copied();
            let mut both: Vec<(f64, f64)> = low.into_iter().chain(high).collect();
            both.sort_by(|a, b| a.0.total_cmp(&b.0));
            both.dedup();
            both
        })
        .collect()
}

/// The mean of each value and those before it within a fiftieth of the whole.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 50).max(1);
    let (mut sum, mut smooth) = (0.0, Vec::with_capacity(points.len()));
    for (index, (x, y)) in points.iter().enumerate() {
        sum += y;
        if index >= window {
            sum -= points[index - window].1;
        }
        smooth.push((*x, sum / window.min(index + 1) as f64));
    }
    smooth
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A number as a person would write it.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        text.replace(".00e", "e").replace("0e", "e")
    } else {
        let decimals = if size >= 100.0 {
            0
        } else if size >= 10.0 {
            1
        } else {
            3
        };
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_spikes_in_few_points() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[77_777].1 = 50.0;
        points[12_345].1 = f64::NAN;
        let series = Series {
            points,
            joined: true,
            ..Series::default()
        };
        let chart = chart("loss", "step", (720.0, 260.0), &[series], &[], false).unwrap();
        assert_eq!(chart.left_out, 1);
        let drawn: Vec<&str> = chart.lines[0].points.split(' ').collect();
        assert!(drawn.len() <= MOST_POINTS, "{}", drawn.len());
        let highest = drawn
            .iter()
            .map(|point| point.split_once(',').unwrap().1.parse::<f64>().unwrap())
            .fold(f64::INFINITY, f64::min);
        let lowest_tick = chart.y_ticks.last().unwrap().at;
        assert!(
            (highest - lowest_tick).abs() < 1.0,
            "the spike reaches the top tick"
        );
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        assert_eq!(ticks(0.0, 97.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let (low, high) = bounds([3.0, 3.0].into_iter());
        assert!(low < 3.0 && high > 3.0);
        assert!(chart("none", "step", (1.0, 1.0), &[Series::default()], &[], true).is_none());
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1200.0, "1200"),
            (1e-4, "1e-4"),
            (2.5e-5, "2.5e-5"),
            (12.5, "12.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
