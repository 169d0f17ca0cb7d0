package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// Camaster is the register that says who is camaster.
func (p Page) Camaster(c admin.Camaster) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s\n", host(c.Name), p.paint(host(c.Host), bold))
	if c.Version == "" || c.Version == "0" {
		b.WriteString(p.wrap("", author(c)+" (version 0)"))
		return b.String()
	}
	fmt.Fprintf(&b, "since    %s\n", p.when(c.Since))
	by := clean(c.Actor)
	by += manner(c.Kind, c.Forced)
	b.WriteString(p.wrap("by       ", by))
	b.WriteString(p.wrap("reason   ", clean(c.Reason)))
	fmt.Fprintf(&b, "version  %s\n", clean(c.Version))
	if c.Handover != "" {
		b.WriteString(p.wrapPainted("", "hands over", amber, " to "+host(c.Handover)+", and is closed meanwhile"))
	}
	if len(c.Conflicts) > 0 {
		b.WriteString(p.wrapPainted("", "conflict", red, " "+against(c.Conflicts)+" without knowing it"))
	}
	return b.String()
}

// History is a list of writes, two or three lines each. A star marks the one that
// stands for its key.
func (p Page) History(writes []admin.Write) string {
	if len(writes) == 0 {
		return "nothing was ever written\n"
	}
	var b strings.Builder
	for _, w := range writes {
		mark := " "
		if w.Current {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %s (%s)  %s  %s\n", mark,
			w.Time.In(p.Now.Location()).Format("2006-01-02 15:04:05"), p.distance(w.Time), p.paint(host(w.Key), bold), p.change(w))
		b.WriteString(p.wrap("    ", fmt.Sprintf("by %s on %s, version %s%s: %s",
			clean(w.Actor), clean(w.Node), clean(w.Version), manner(w.Kind, w.Forced), or(clean(w.Reason)))))
		if w.Accepted != "" {
			b.WriteString(p.wrapPainted("    ", "accepted loss:", amber, " "+clean(w.Accepted)))
		}
		if len(w.Conflict) > 0 {
			b.WriteString(p.wrapPainted("    ", "conflict:", red,
				" its writer did not know "+clean(strings.Join(w.Conflict, ", "))))
		}
	}
	return b.String()
}

// change is what a write did.
func (p Page) change(w admin.Write) string {
	to := host(w.To)
	if !w.Until.IsZero() {
		to += " until " + p.clock(w.Until)
	}
	switch {
	case w.Handover != "":
		return to + " hands over to " + host(w.Handover)
	case w.From == "":
		return to
	}
	return host(w.From) + " -> " + to
}

// Replacing is what a new camaster is about to replace.
func (p Page) Replacing(c admin.Camaster) string {
	since := ""
	if !c.Since.IsZero() {
		since = ", since " + p.when(c.Since)
	}
	return p.wrap("", fmt.Sprintf("replacing %s%s, %s", host(c.Host), since, author(c)))
}

// Already says that nothing was to be done.
func (p Page) Already(c admin.Camaster) string {
	return p.wrap("", fmt.Sprintf("%s is the camaster already, %s; nothing was changed", host(c.Host), author(c)))
}

// Set is what became of a new camaster; name is the CNAME.
func (p Page) Set(name string, r admin.Result) string {
	return fmt.Sprintf("%s is now %s (version %s)\n", host(name), p.paint(host(r.Write.To), bold), clean(r.Write.Version)) +
		p.acks(r.Acked, r.Of, r.Nodes)
}

// Drained is what became of a drain, or of its end.
func (p Page) Drained(name string, r admin.Result) string {
	until := ""
	if !r.Write.Until.IsZero() {
		until = " until " + p.when(r.Write.Until)
	}
	return fmt.Sprintf("%s is now %s%s (version %s)\n", host(name), host(r.Write.To), until, clean(r.Write.Version)) +
		p.acks(r.Acked, r.Of, r.Nodes)
}

// OwnDrain says that a master drains itself, whatever the nodes have written.
func (p Page) OwnDrain(name, reason string) string {
	return p.wrap("", fmt.Sprintf("%s is still drained by its own member: %s; `puppetsrv-member undrain` on that host ends it", host(name), clean(reason)))
}

// acks is how many nodes have a write, and which have not and why.
func (p Page) acks(acked, of int, nodes []admin.Ack) string {
	summary, colour := fmt.Sprintf("acknowledged by %d of %s", acked, count(of, "node")), green
	var b strings.Builder
	for _, n := range nodes {
		if !n.Acked {
			why := clean(n.Error)
			if why == "" {
				why = "not yet"
			}
			b.WriteString(p.wrap("  "+clean(n.Node)+"  ", why))
		}
	}
	if acked < of {
		summary, colour = summary+", not by", amber
		if b.Len() == 0 {
			summary = strings.TrimSuffix(summary, ", not by")
		}
	}
	return p.paint(summary, colour) + "\n" + b.String()
}

// Answer is when one DNS server answered the new name.
type Answer struct {
	Node    string
	Address string        // IP:port, or "" where it is not known
	After   time.Duration // since the write was sent
	Err     string        // why not; then After says nothing
}

// Answers lays out lines of when each server answered; each is given to print as
// soon as it is known, so the columns are made for these nodes and addresses.
func (p Page) Answers(nodes, addresses []string) func(Answer) string {
	wide := func(all []string) (n int) {
		for _, s := range all {
			n = max(n, len([]rune(s)))
		}
		return n
	}
	node, address := wide(nodes), wide(addresses)
	return func(a Answer) string {
		line := fmt.Sprintf("  %-*s  %-*s  ", node, clean(a.Node), address, clean(or(a.Address)))
		if a.Err != "" {
			return p.wrapPainted(line, "no:", red, " "+clean(a.Err))
		}
		return line + fmt.Sprintf("%7.1f ms\n", float64(a.After.Microseconds())/1000)
	}
}
