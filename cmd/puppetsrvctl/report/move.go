package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Plan is what a failover or a switchover would do: every condition and its state, what
// is lost, the steps, and whether it would be refused with these flags.
func (p Page) Plan(plan admin.Plan, acceptDataLoss, force bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s to %s, in place of version %s\n", clean(string(plan.Kind)), or(host(plan.From)), p.paint(host(plan.To), bold), clean(plan.Version))
	if plan.Handover {
		b.WriteString(p.wrap("", fmt.Sprintf("the handover is written: %s is closed, or about to be", host(plan.From))))
	}
	b.WriteString("\nconditions\n")
	name := 0
	for _, c := range plan.Conditions {
		name = max(name, len([]rune(clean(c.Name))))
	}
	refused := 0
	for _, c := range plan.Conditions {
		word, colour, rest := "ok", green, ""
		switch {
		case c.OK:
		case c.Warning:
			word, colour = "note", amber
		case c.Refuses(acceptDataLoss, force):
			word, colour, rest = "no", red, passes(c)
			refused++
		default:
			word, colour, rest = "pass", amber, " (--"+clean(c.Passed)+" passes over this)"
		}
		block := p.wrap(fmt.Sprintf("  %-4s  %-*s  ", word, name, clean(c.Name)), clean(c.Detail)+rest)
		b.WriteString(strings.Replace(block, word, p.paint(word, colour), 1))
	}
	b.WriteString("\n" + p.loss(plan.Loss))
	if len(plan.Steps) > 0 {
		b.WriteString("\nsteps\n")
		var rows [][]cell
		for i, s := range plan.Steps {
			where := "the nodes"
			if s.Host != "" {
				where = host(s.Host)
			}
			rows = append(rows, []cell{text(fmt.Sprint(i + 1)), text(where), text(or(s.Service)), text(s.Name), text(s.Detail)})
		}
		b.WriteString(p.table("  ", []string{"#", "WHERE", "SERVICE", "STEP", "WHAT"}, rows))
	}
	if refused > 0 {
		b.WriteString("\n" + p.paint("it would be refused", red) + "\n")
	} else {
		b.WriteString("\n" + p.paint("it would be done", green) + "\n")
	}
	return b.String()
}

// passes says what would pass over a condition.
func passes(c admin.Condition) string {
	if c.Passed == "" {
		return ""
	}
	return " (--" + clean(c.Passed) + " would pass over this)"
}

// loss is what is lost at most.
func (p Page) loss(l admin.Loss) string {
	text := clean(l.Detail)
	if !l.Since.IsZero() {
		text += ": since " + l.Since.In(p.Now.Location()).Format("15:04:05.000")
	}
	return p.wrap("loses     ", text)
}

// Refusals are conditions that are in the way, one a line.
func Refusals(conditions []admin.Condition) string {
	var b strings.Builder
	for _, c := range conditions {
		b.WriteString("\n  - " + clean(c.Detail) + passes(c))
	}
	return b.String()
}

// Moving says what is about to be done, and what it may lose. What is well is not told.
func (p Page) Moving(plan admin.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s to %s, in place of version %s\n", clean(string(plan.Kind)), or(host(plan.From)), p.paint(host(plan.To), bold), clean(plan.Version))
	if plan.Handover {
		b.WriteString("the handover is written already; going on from there\n")
	}
	b.WriteString(p.loss(plan.Loss))
	for _, c := range plan.Conditions {
		switch {
		case c.OK || c.Waits && plan.Handover:
		case c.Warning:
			b.WriteString(p.wrapPainted("note      ", clean(c.Name), amber, ": "+clean(c.Detail)))
		case plan.Handover: // without flags for it, that is waited for too
			b.WriteString(p.wrapPainted("not met   ", clean(c.Name), amber, ": "+clean(c.Detail)))
		default:
			b.WriteString(p.passed(c))
		}
	}
	return b.String()
}

func (p Page) passed(c admin.Condition) string {
	return p.wrapPainted("passed    ", clean(c.Name), amber, ": "+clean(c.Detail))
}

// Passed is what a handover that is done passed over, and what it then loses; nothing if
// every condition is met.
func (p Page) Passed(plan admin.Plan) string {
	var b strings.Builder
	for _, c := range plan.Conditions {
		if c.Refuses(false, false) {
			b.WriteString(p.passed(c))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return p.loss(plan.Loss) + b.String()
}

// HandingOver is what became of the write that begins a handover.
func (p Page) HandingOver(r admin.Result) string {
	return p.wrap("", fmt.Sprintf("%s hands over to %s (version %s); DNS stays, and it is closed until then", host(r.Write.To), host(r.Write.Handover), clean(r.Write.Version))) +
		p.acks(r.Acked, r.Of, r.Nodes)
}

// NoHandover says that there was nothing to abort.
func (p Page) NoHandover(c admin.Camaster) string {
	return p.wrap("", fmt.Sprintf("%s hands over to nobody, %s; nothing was changed", host(c.Host), author(c)))
}

// Step is a step of a member.
type Step struct {
	Host string
	evidence.Step
}

// Steps lays out lines of what members do; each is given to print as soon as it is
// known, so the columns are made for these hosts.
func (p Page) Steps(hosts []string) func(Step) string {
	wide := 0
	for _, h := range hosts {
		wide = max(wide, len([]rune(host(h))))
	}
	return func(s Step) string {
		line := fmt.Sprintf("  %-*s  %-10s  %-24s  ", wide, host(s.Host), or(clean(s.Service)), clean(s.Name))
		switch s.State {
		case "failed":
			return line + p.paint("failed:", red) + " " + clean(s.Detail) + ", it is tried again\n"
		case "running":
			return line + p.paint("running", amber) + strings.TrimSuffix(": "+clean(s.Detail), ": ") + "\n"
		}
		return strings.TrimRight(line+ms(s.Milliseconds)+"  "+clean(s.Detail), " ") + "\n"
	}
}

func ms(n float64) string { return fmt.Sprintf("%8.1f ms", n) }

// Phase is one line of the table of times, in milliseconds.
type Phase struct {
	Name       string
	Took, Done float64
}

// Phases is the table of times.
func (p Page) Phases(phases []Phase) string {
	if len(phases) == 0 {
		return ""
	}
	name := len("PHASE")
	for _, x := range phases {
		name = max(name, len([]rune(clean(x.Name))))
	}
	var b strings.Builder
	line := func(s style, first, took, done string) {
		text := fmt.Sprintf("%-*s  %11s  %11s", name, first, took, done)
		b.WriteString(p.paint(strings.TrimRight(text, " "), s) + "\n")
	}
	b.WriteString("\n")
	line(bold, "PHASE", "TOOK", "DONE AFTER")
	for _, x := range phases {
		if x.Name == "total" {
			line(bold, "total", "", ms(x.Done))
			continue
		}
		line(plain, clean(x.Name), ms(x.Took), ms(x.Done))
	}
	return b.String()
}

// Rejoining says that a member was asked.
func (p Page) Rejoining(name string) string {
	return p.wrap("", fmt.Sprintf("the member on %s makes it a standby", host(name)))
}

// Standby says that a host is a standby.
func (p Page) Standby(name string, already bool) string {
	if already {
		return p.wrap("", fmt.Sprintf("%s is a standby already; nothing was changed", host(name)))
	}
	return p.wrap("", fmt.Sprintf("%s is a standby", host(name)))
}

// Manual is what a person is to run on a host.
func (p Page) Manual(name, commands string) string {
	var b strings.Builder
	b.WriteString(p.wrap("", fmt.Sprintf("to be run on %s:", host(name))))
	for line := range strings.Lines(commands) {
		b.WriteString("  " + strings.TrimRight(clean(strings.TrimSuffix(line, "\n")), " ") + "\n")
	}
	return b.String()
}

// Took is how long something took.
func (p Page) Took(d time.Duration) string {
	return strings.TrimSpace(ms(float64(d.Microseconds())/1000)) + "\n"
}
