//! A line plot as SVG: a few series over time, in per cent, with marks. Readable on light and dark pages.
//!
//! Owns the drawing. Knows nothing of what the numbers mean.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 54.0;
/// Ticks on the time axis at most.
const TICKS: f64 = 9.0;

/// Colours for a light page, and for a dark one where the reader prefers it.
const STYLE: &str = "\
svg{--ink:#1f2328;--dim:#59636e;--line:#d5dae0;--page:#ffffff;--one:#0969da;--two:#bc4c00;--mark:#1a7f37}\
@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--dim:#9198a1;--line:#353c45;--page:#0d1117;--one:#4493f8;--two:#f0883e;\
--mark:#3fb950}}\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--dim)}\
.title{font-size:17px;font-weight:600;fill:var(--ink)}.page{fill:var(--page)}\
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1.2}\
.one{stroke:var(--one);fill:none;stroke-width:2.4}.two{stroke:var(--two);fill:none;stroke-width:2.4}\
.area{fill:var(--one);opacity:.12}.ideal{stroke:var(--dim);fill:none;stroke-width:1.2;stroke-dasharray:2 4}\
.mark{stroke:var(--mark);stroke-width:1.6;stroke-dasharray:6 4}\
text.one{fill:var(--one);stroke:none}text.two{fill:var(--two);stroke:none}text.mark{fill:var(--mark);stroke:var(--page);stroke-width:4;stroke-dasharray:none;paint-order:stroke}\
text.key{font-weight:600}";

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A line with the area below it.
    Area,
    /// A line of another colour.
    Line,
    /// A thin dotted line, for what could be at best.
    Ideal,
}

/// One curve.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it shows, for the key.
    pub name: String,
    /// How.
    pub look: Look,
    /// Seconds, and the part of the whole from 0 to 1; ascending in seconds.
    pub points: Vec<(f64, f64)>,
}

/// A moment worth a line of its own.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Seconds.
    pub at: f64,
    /// What happens then.
    pub name: String,
}

/// The plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it is of.
    pub title: String,
    /// Under which circumstances.
    pub subtitle: String,
    /// Its curves; the first is in front.
    pub series: Vec<Series>,
    /// Its moments.
    pub marks: Vec<Mark>,
}

impl Plot {
    /// The plot as a document.
    #[must_use]
    pub fn svg(&self) -> String {
        let moments = self.marks.iter().map(|mark| mark.at);
        let last = self.series.iter().filter_map(|series| series.points.last()).map(|point| point.0);
        let end = moments.chain(last).fold(f64::MIN_POSITIVE, f64::max) * 1.04;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\n",
            escape(&self.title)
        );
        // Writing to a text cannot fail.
        let _ = self.frame(&mut out, end);
        for series in self.series.iter().rev() {
            let _ = curve(&mut out, series, end);
        }
        let _ = self.marks(&mut out, end);
        let _ = self.key(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn frame(&self, out: &mut String, end: f64) -> std::fmt::Result {
        text(out, LEFT - 38.0, 30.0, "title", "start", &self.title)?;
        text(out, LEFT - 38.0, 51.0, "", "start", &self.subtitle)?;
        for percent in [0_u8, 25, 50, 75, 100] {
            let y = vertical(f64::from(percent) / 100.0);
            let class = if percent == 0 { "axis" } else { "grid" };
            line(out, class, (LEFT, y), (WIDTH - RIGHT, y))?;
            text(out, LEFT - 8.0, y + 4.5, "", "end", &format!("{percent} %"))?;
        }
        let step = tick(end / TICKS);
        let mut at = 0.0;
        while at <= end {
            let x = horizontal(at, end);
            line(out, "axis", (x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5.0))?;
            let digits = usize::from(step < 1.0) + usize::from(step < 0.1);
            text(out, x, HEIGHT - BOTTOM + 20.0, "", "middle", &format!("{at:.digits$}"))?;
            at += step;
        }
        text(out, f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 12.0, "", "middle", "seconds")
    }

    fn marks(&self, out: &mut String, end: f64) -> std::fmt::Result {
        for (place, mark) in self.marks.iter().enumerate() {
            let x = horizontal(mark.at, end);
            line(out, "mark", (x, TOP), (x, HEIGHT - BOTTOM))?;
            let down = if place % 2 == 0 { 60.0 } else { 84.0 };
            text(out, x - 7.0, TOP + down, "mark", "end", &mark.name)?;
        }
        Ok(())
    }

    fn key(&self, out: &mut String) -> std::fmt::Result {
        let drawn = self.series.iter().filter(|series| series.look != Look::Ideal);
        for (place, series) in (0_u8..).zip(drawn) {
            let y = TOP + 22.0 * (1.0 + f64::from(place)) - 4.0;
            let class = if series.look == Look::Area { "one" } else { "two" };
            line(out, class, (LEFT + 14.0, y - 4.5), (LEFT + 36.0, y - 4.5))?;
            text(out, LEFT + 44.0, y, &format!("key {class}"), "start", &series.name)?;
        }
        Ok(())
    }
}

fn curve(out: &mut String, series: &Series, end: f64) -> std::fmt::Result {
    let mut path = String::new();
    for (place, &(at, part)) in series.points.iter().enumerate() {
        let verb = if place == 0 { 'M' } else { 'L' };
        write!(path, "{verb}{:.1} {:.1}", horizontal(at, end), vertical(part))?;
    }
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { return Ok(()) };
    let class = match series.look {
        Look::Area => {
            let (from, to, zero) = (horizontal(first.0, end), horizontal(last.0, end), vertical(0.0));
            writeln!(out, "<path class=\"area\" d=\"{path}L{to:.1} {zero:.1}L{from:.1} {zero:.1}Z\"/>")?;
            "one"
        }
        Look::Line => "two",
        Look::Ideal => "ideal",
    };
    writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>")
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) -> std::fmt::Result {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(out, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) -> std::fmt::Result {
    let words = escape(words);
    writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
}

fn horizontal(at: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * at / end
}

fn vertical(part: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
}

/// The least of 1, 2, 5, 10, … and 0.5, 0.2, … that is not below `least`.
fn tick(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade).find(|&step| step >= least).unwrap_or(decade)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_curves_within_its_frame() {
        let points = vec![(0.0, 0.0), (5.0, 0.5), (10.0, 1.0)];
        let series = |look| Series { name: "a < b".into(), look, points: points.clone() };
        let plot = Plot {
            title: "nodes & links".into(),
            subtitle: String::new(),
            series: vec![series(Look::Area), series(Look::Ideal)],
            marks: vec![Mark { at: 9.0, name: "bound".into() }],
        };
        let svg = plot.svg();
        assert!(svg.contains("nodes &amp; links") && svg.contains("a &lt; b"), "{svg}");
        let numbers = svg.split(['M', 'L', ' ', '"', 'Z']).filter_map(|word| word.parse::<f64>().ok());
        assert!(numbers.into_iter().all(|number| (0.0..=WIDTH).contains(&number)), "{svg}");
        assert_eq!(svg.matches("<path").count(), 3);
    }

    #[test]
    fn ticks_are_round() {
        for (least, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (0.03, 0.05), (270.0, 500.0), (6.0, 10.0)] {
            assert!((tick(least) - step).abs() < step / 1000.0, "{least}: {}", tick(least));
        }
    }
}
