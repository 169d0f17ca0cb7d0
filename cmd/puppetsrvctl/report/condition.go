package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// condition is one way in which a master is not simply up.
type condition struct {
	word  string // down, left out, drained
	style style
	where []string // the datacenters whose agents are concerned
	all   bool     // those are all
	why   string
	since time.Time
	until time.Time
	// voices counts the observers there whose word counts, down those that see it
	// down. With nobody there, those of other datacenters count: elsewhere.
	down, voices int
	elsewhere    bool
}

// conditions are what is to be said of a master: its drain, then its verdicts,
// those of datacenters for which the same holds together.
func conditions(m admin.Master) []condition {
	var all []condition
	if d := m.Drain; d != nil {
		all = append(all, condition{
			word: "drained", style: amber, all: true, since: d.Since, until: d.Until,
			why: fmt.Sprintf("%s (by %s)", clean(d.Reason), clean(d.Actor)),
		})
	}
	first := len(all)
	for _, v := range m.Verdicts {
		c := condition{word: "down", style: red, why: because(v.Reason, v.Detail), since: v.Since}
		switch {
		case !v.Listed:
			c.word = "left out"
			if v.Omitted != "" {
				c.why = because(v.Omitted, v.Detail)
			}
		case !v.Down:
			continue
		}
		i := slices.IndexFunc(all[first:], func(o condition) bool { return o.word == c.word && o.why == c.why })
		if i < 0 {
			all = append(all, c)
			i = len(all) - 1 - first
		}
		same := &all[first+i]
		same.where = append(same.where, v.Datacenter)
		if v.Since.Before(same.since) {
			same.since = v.Since
		}
	}
	for i := first; i < len(all); i++ {
		c := &all[i]
		c.all = len(c.where) == len(m.Verdicts)
		c.hear(m.Evidence, func(datacenter string) bool { return slices.Contains(c.where, datacenter) })
		if c.voices == 0 {
			c.elsewhere = true
			c.hear(m.Evidence, func(string) bool { return true })
		}
	}
	return all
}

// hear counts the voices from some datacenters.
func (c *condition) hear(evidence []admin.Evidence, from func(datacenter string) bool) {
	for _, e := range evidence {
		if e.Ignored != "" || !from(e.Datacenter) {
			continue
		}
		c.voices++
		if e.Down {
			c.down++
		}
	}
}

// because is a reason with its detail, unless the one is in the other.
func because(reason, detail string) string {
	reason, detail = clean(reason), clean(detail)
	switch {
	case detail == "" || detail == reason:
		return reason
	case reason == "" || strings.HasPrefix(detail, reason):
		return detail
	}
	return reason + " (" + detail + ")"
}

// place is where a condition holds.
func (c condition) place() string {
	if c.all {
		return "everywhere"
	}
	return "in " + clean(strings.Join(c.where, ", "))
}

// rest is what follows the condition's word in a sentence.
func (c condition) rest(p Page) string {
	var b strings.Builder
	if c.word != "drained" {
		b.WriteString(" " + c.place())
	}
	b.WriteString(p.lasting(c.since))
	if !c.until.IsZero() {
		b.WriteString(", until " + p.when(c.until))
	}
	if c.why != "" {
		b.WriteString(": " + c.why)
	}
	if c.voices > 0 {
		fmt.Fprintf(&b, "; seen by %d of %s", c.down, count(c.voices, "observer"))
		if c.elsewhere {
			b.WriteString(" elsewhere")
		}
	}
	return b.String()
}

// brief is a master's condition in a word or two.
func brief(m admin.Master) (string, style) {
	all := conditions(m)
	if len(all) == 0 {
		return "up", green
	}
	var words []string
	worst := amber
	for _, c := range all {
		word := c.word
		if !c.all {
			word += " " + c.place()
		}
		words = append(words, word)
		if c.style == red {
			worst = red
		}
	}
	return strings.Join(words, ", "), worst
}

// count is "1 node", "2 nodes".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
