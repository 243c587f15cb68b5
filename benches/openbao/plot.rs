//! Plots as SVG: axes, steps, dots and marks, in colors that are told apart by all, on white whatever the
//! page is.
#![allow(dead_code, reason = "each benchmark draws with some of these")]

use std::fmt::Write as _;
use std::path::Path;

pub(crate) const BLUE: &str = "#0072b2";
pub(crate) const ORANGE: &str = "#d55e00";
pub(crate) const GRAY: &str = "#6b6b6b";

/// How wide a plot is, in its own units.
const WIDTH: f64 = 760.0;

/// Room for the labels of the vertical axis, and on the right.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;

/// An axis from 0 to its end.
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) end: f64,
    /// From one tick to the next.
    pub(crate) step: f64,
}

pub(crate) struct Plot {
    content: String,
    height: f64,
}

/// Where the data of a pair of axes goes.
pub(crate) struct Panel<'a> {
    plot: &'a mut Plot,
    top: f64,
    height: f64,
    ends: (f64, f64),
}

impl Plot {
    /// With a title and, below it, the lines of a caption.
    pub(crate) fn new(title: &str, caption: &[String]) -> Self {
        let mut plot = Self { content: String::new(), height: 34.0 };
        plot.text((LEFT, 26.0), "start", "font-weight=\"bold\" font-size=\"16\"", title);
        for line in caption {
            plot.height += 18.0;
            let height = plot.height;
            plot.text((LEFT, height), "start", "", line);
        }
        plot.height += 24.0;
        plot
    }

    /// Below what is there already.
    pub(crate) fn panel(&mut self, height: f64, x: &Axis, y: &Axis) -> Panel<'_> {
        let top = self.height;
        self.height += height + 62.0;
        let mut panel = Panel { plot: self, top, height, ends: (x.end, y.end) };
        for at in ticks(x) {
            let x = panel.x(at);
            panel.line((x, top), (x, top + height), "#dddddd", "");
            panel.plot.text((x, top + height + 18.0), "middle", "", &number(at));
        }
        for at in ticks(y) {
            let y = panel.y(at);
            panel.line((LEFT, y), (WIDTH - RIGHT, y), "#dddddd", "");
            panel.plot.text((LEFT - 8.0, y + 4.5), "end", "", &number(at));
        }
        let (bottom, middle) = (top + height, top + height / 2.0);
        panel.line((LEFT, top), (LEFT, bottom), "#222222", "");
        panel.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "#222222", "");
        panel.plot.text((f64::midpoint(LEFT, WIDTH - RIGHT), bottom + 40.0), "middle", "", x.label);
        let turned = format!("transform=\"rotate(-90 24 {middle})\"");
        panel.plot.text((24.0, middle), "middle", &turned, y.label);
        panel
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, more: &str, text: &str) {
        assert!(!text.contains(['<', '&']), "{text}");
        let _ = writeln!(
            self.content,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>"
        );
    }

    pub(crate) fn write(&self, path: &Path) {
        let (width, height) = (WIDTH, self.height);
        let content = &self.content;
        let whole = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{content}</svg>\n"
        );
        std::fs::write(path, whole).expect("a plot can be written");
    }
}

impl Panel<'_> {
    /// How a share grows: level until the next point, then up to it; no further than the axis.
    pub(crate) fn steps(&mut self, points: &[(f64, f64)], color: &str, more: &str) {
        let mut path = format!("M{:.1} {:.1}", self.x(0.0), self.y(0.0));
        let end = self.ends.0;
        for (number, (x, y)) in points.iter().enumerate().take_while(|(_, (x, _))| *x <= end) {
            // Of those that would be drawn in one place, the highest.
            let place = |x| format!("{:.1}", self.x(x));
            if points.get(number + 1).is_none_or(|(next, _)| place(*next) != place(*x)) {
                let _ = write!(path, "H{}V{:.1}", place(*x), self.y(*y));
            }
        }
        let _ = writeln!(self.plot.content, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" {more}/>");
    }

    /// Straight from each point to the next.
    pub(crate) fn curve(&mut self, points: &[(f64, f64)], color: &str) {
        let mut places = String::new();
        for (x, y) in points {
            let _ = write!(places, "{:.1},{:.1} ", self.x(*x), self.y(*y));
        }
        let _ = writeln!(
            self.plot.content,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            places.trim_end()
        );
    }

    pub(crate) fn dots(&mut self, points: &[(f64, f64)], color: &str) {
        for (x, y) in points.iter().filter(|(x, _)| *x <= self.ends.0) {
            let (x, y) = (self.x(*x), self.y(*y));
            let _ = writeln!(
                self.plot.content,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{color}\" fill-opacity=\"0.5\"/>"
            );
        }
    }

    /// An upright line with words beside its top.
    pub(crate) fn mark(&mut self, at: f64, words: &str) {
        let (x, top, bottom) = (self.x(at), self.top, self.top + self.height);
        self.line((x, top), (x, bottom), ORANGE, "stroke-dasharray=\"6 4\" stroke-width=\"2\"");
        self.plot.text((x, top - 6.0), "middle", "", words);
    }

    /// What the colors mean, in the lower right corner, from the bottom up.
    pub(crate) fn legend(&mut self, lines: &[(&str, String)]) {
        for (row, (color, words)) in (0_u8..).zip(lines) {
            let y = self.top + self.height - 18.0 - 20.0 * f64::from(row);
            self.line((LEFT + 300.0, y - 4.5), (LEFT + 324.0, y - 4.5), color, "stroke-width=\"3\"");
            self.plot.text((LEFT + 332.0, y), "start", "", words);
        }
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, more: &str) {
        let _ = writeln!(
            self.plot.content,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" {more}/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * x / self.ends.0
    }

    fn y(&self, y: f64) -> f64 {
        self.top + self.height * (1.0 - y / self.ends.1)
    }
}

impl Axis {
    /// With an end a little beyond `last`, and some five to ten ticks.
    pub(crate) fn up_to(last: f64, label: &'static str) -> Self {
        let decade = 10_f64.powf((last / 10.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
        let step = step.into_iter().find(|step| last / step <= 10.0).unwrap_or(decade * 10.0);
        Self { label, end: (last / step).ceil() * step, step }
    }
}

fn ticks(axis: &Axis) -> impl Iterator<Item = f64> {
    let (end, step) = (axis.end, axis.step);
    (0_u32..).map(move |count| f64::from(count) * step).take_while(move |at| *at <= end + step / 1000.0)
}

/// Without the digits that a sum of fractions brings.
fn number(at: f64) -> String {
    let text = format!("{at:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
