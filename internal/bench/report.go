package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// report gathers the rows of the table.
type report struct {
	out    io.Writer
	rows   [][5]string
	missed int
}

func newReport(out io.Writer) *report { return &report{out: out} }

// say prints progress at once, outside of the table.
func (r *report) say(format string, args ...any) { fmt.Fprintf(r.out, "# "+format+"\n", args...) }

// row adds a line of the table. With judged, ok says whether the target that
// the last cell names is met.
func (r *report) row(measure, ours, against, target string, judged, ok bool) {
	verdict := ""
	if judged {
		verdict = "ok"
		if !ok {
			verdict = "MISS"
			r.missed++
		}
	}
	r.rows = append(r.rows, [5]string{measure, ours, against, target, verdict})
}

// title starts a part of the table.
func (r *report) title(text string) { r.rows = append(r.rows, [5]string{text}) }

func (r *report) print() {
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nmeasure\tpuppetsrv\tagainst\tratio/target\tverdict")
	for _, c := range r.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c[0], c[1], c[2], c[3], c[4])
	}
	_ = w.Flush() // to a terminal or a pipe that may be closed
	fmt.Fprintf(r.out, "\n%d targets missed\n", r.missed)
}

// quantile returns the smallest of the values that at least the share p of all
// do not exceed ("nearest rank"), with p from 0 to 1: of 50 values the 0.99
// quantile is the largest, the 0.5 quantile the 25th. It is 0 for no values.
func quantile[T cmp.Ordered](values []T, p float64) T {
	if len(values) == 0 {
		var zero T
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median is the 0.5 quantile.
func median[T cmp.Ordered](values []T) T { return quantile(values, 0.5) }

// short prints a duration with about three digits.
func short(d time.Duration) string {
	unit := time.Nanosecond
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}
