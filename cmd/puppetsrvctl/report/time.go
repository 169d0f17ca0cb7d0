package report

import (
	"fmt"
	"time"
)

// Page is what a text is made for.
type Page struct {
	Now    time.Time // in the reader's time zone
	Width  int       // in columns; 0 does not break lines
	Colour bool
}

// Short is a duration in one unit, as "14s" or "3d": the largest of which there
// are two at least, so that it is never off by more than a third.
func Short(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// clock is a time in the reader's zone: without its date while that is clear.
func (p Page) clock(t time.Time) string {
	t = t.In(p.Now.Location())
	if p.Now.Sub(t).Abs() < 12*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// distance is how far t is from now, as "3m ago" or "in 28m".
func (p Page) distance(t time.Time) string {
	if d := t.Sub(p.Now); d >= 0 {
		return "in " + Short(d)
	}
	return Short(p.Now.Sub(t)) + " ago"
}

// when is clock and distance; an unknown time is a dash.
func (p Page) when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return p.clock(t) + " (" + p.distance(t) + ")"
}

// ago is the distance alone.
func (p Page) ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return p.distance(t)
}

// lasting is " for 3m", or nothing where the beginning is not known.
func (p Page) lasting(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return " for " + Short(p.Now.Sub(since))
}
