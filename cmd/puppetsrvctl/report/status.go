package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

const (
	// maxListed bounds the masters and the nodes that a status lists one by one.
	maxListed = 20
	// maxStandbys bounds the masters named in a status that could become camaster.
	maxStandbys = 4
	// silence is how old a node's last word may be before that is worth a line.
	silence = 15 * time.Second
)

// Status is one screen: who is camaster, whether all nodes agree, and whatever is
// not well. What is well takes one line.
func (p Page) Status(s admin.Status) string {
	var b strings.Builder
	seen := clean(s.Node)
	if s.Datacenter != "" {
		seen += " in " + clean(s.Datacenter)
	}
	fmt.Fprintf(&b, "seen by   %s, %s\n", seen, s.Time.In(p.Now.Location()).Format("2006-01-02 15:04:05"))
	b.WriteString(p.statusCamaster(s))
	b.WriteString(p.statusNodes(s))
	b.WriteString(p.statusMasters(s.Masters))
	b.WriteString(p.statusExpiring(s.Expiring))
	b.WriteString(p.statusProblems(s.Problems))
	return b.String()
}

func (p Page) statusCamaster(s admin.Status) string {
	var b strings.Builder
	c := s.Camaster
	word, colour := "unknown", red
	var standbys []string
	more := 0
	held := ""
	for _, m := range s.Masters {
		switch {
		case host(m.Host) == host(c.Host):
			word, colour = brief(m)
			held = p.statusRole(m)
		case !m.CA:
		case len(standbys) == maxStandbys:
			more++
		default:
			state, _ := brief(m)
			if r := m.Role(); r != nil && r.State != evidence.Standby {
				state += ", " + roleState(r, false)
			}
			if m.Member != nil && !m.Member.Fresh {
				state += ", its member " + clean(m.Member.State)
			}
			if replicas := p.replicas(m); replicas != "" {
				state += ", " + replicas
			}
			standbys = append(standbys, host(m.Host)+" "+state)
		}
	}
	name, since := or(host(c.Host)), ""
	if !c.Since.IsZero() {
		since = ", since " + p.when(c.Since)
	}
	block := p.wrap("camaster  ", name+", "+word+since)
	// Where the state is broken over two lines it stays without a colour.
	block = strings.Replace(block, ", "+word, ", "+p.paint(word, colour), 1)
	b.WriteString(strings.Replace(block, name, p.paint(name, bold), 1))
	b.WriteString(p.wrap("          ", author(c)))
	if c.Handover != "" {
		b.WriteString(p.wrapPainted("          ", "hands over", amber, " to "+host(c.Handover)+", and is closed meanwhile"))
	}
	if len(c.Conflicts) > 0 {
		b.WriteString(p.wrapPainted("          ", "conflict:", red, fmt.Sprintf(
			" %s without knowing it; see puppetsrvctl history camaster", against(c.Conflicts))))
	}
	b.WriteString(held)
	if len(standbys) == 0 {
		standbys = []string{"none: no other master may become the camaster"}
	}
	if more > 0 {
		standbys = append(standbys, fmt.Sprintf("%d more", more))
	}
	b.WriteString(p.wrap("standby   ", strings.Join(standbys, "; ")))
	return b.String()
}

// author is who made the camaster what it is, and why.
func author(c admin.Camaster) string {
	if c.Version == "" || c.Version == "0" {
		return "as the Corefile has it: no other was ever set"
	}
	return fmt.Sprintf("by %s: %s (version %s%s)", clean(c.Actor), clean(c.Reason), clean(c.Version), manner(c.Kind, c.Forced))
}

// manner is how a write came to be, where it is not the usual way.
func manner(kind admin.Kind, forced bool) string {
	text := ""
	if kind != admin.KindSet {
		text = ", " + clean(string(kind))
	}
	if forced {
		text += ", forced"
	}
	return text
}

// against names the writes that one won against.
func against(writes []admin.Write) string {
	var all []string
	for _, w := range writes {
		all = append(all, fmt.Sprintf("%s (%s, by %s)", host(w.To), clean(w.Version), clean(w.Actor)))
	}
	return "won against " + strings.Join(all, ", ")
}

func (p Page) statusNodes(s admin.Status) string {
	var (
		alive, dead, differ int
		self                admin.Node
		lines               []string
	)
	for _, n := range s.Nodes {
		if n.Self {
			self = n
		}
	}
	for _, n := range s.Nodes {
		prefix := "  " + clean(n.Name) + "  "
		switch {
		case n.State == "left":
			continue
		case n.State != "alive":
			dead++
			lines = append(lines, p.wrapPainted(prefix, clean(n.State), red, p.lasting(n.Since)))
			continue
		}
		alive++
		if !n.Agrees && !n.Self {
			differ++
			lines = append(lines, p.wrapPainted(prefix, "disagrees", red, ": "+difference(self, n)))
		}
		if n.Isolated {
			lines = append(lines, p.wrapPainted(prefix, "isolated", amber, ": it reaches no master, and its verdicts do not count"))
		}
		if age := time.Duration(n.Age * float64(time.Second)); age > silence && !n.Self {
			lines = append(lines, p.wrapPainted(prefix, "silent", amber, " for "+Short(age)))
		}
	}
	summary, verdict, colour := fmt.Sprintf("%d alive", alive), ", all agree", green
	if alive == 1 {
		verdict = ""
	}
	if dead > 0 {
		summary += fmt.Sprintf(", %d dead", dead)
		colour = amber
	}
	if !s.Agree || differ > 0 {
		verdict, colour = ", they do not agree", red
	}
	summary += verdict
	return "nodes     " + p.paint(summary, colour) + "\n" + listed(lines, "puppetsrvctl cluster")
}

// difference is in what n's state is not that of the node that answers.
func difference(self, n admin.Node) string {
	var all []string
	if host(n.Camaster) != host(self.Camaster) || n.Version != self.Version {
		all = append(all, fmt.Sprintf("its camaster is %s (version %s)", or(host(n.Camaster)), or(clean(n.Version))))
	}
	theirs := make(map[string]admin.ZoneState)
	for _, z := range n.Zones {
		theirs[z.Origin] = z
	}
	for _, z := range self.Zones {
		other, ok := theirs[z.Origin]
		switch {
		case !ok:
			all = append(all, fmt.Sprintf("it does not serve %s", host(z.Origin)))
		case other.Hash != z.Hash:
			all = append(all, fmt.Sprintf("%s differs (serial %d, here %d)", host(z.Origin), other.Serial, z.Serial))
		}
	}
	if len(all) == 0 {
		return "its zones or its camaster are other ones"
	}
	return strings.Join(all, "; ")
}

func (p Page) statusMasters(masters []admin.Master) string {
	var lines []string
	odd := 0
	for _, m := range masters {
		all := conditions(m)
		if len(all) > 0 {
			odd++
		}
		for _, c := range all {
			lines = append(lines, p.wrapPainted("  "+host(m.Host)+"  ", c.word, c.style, c.rest(p)))
		}
	}
	summary, colour := fmt.Sprintf("%d, all up", len(masters)), green
	switch {
	case len(masters) == 0:
		summary, colour = "none", red
	case odd > 0:
		summary, colour = fmt.Sprintf("%d of %d up everywhere", len(masters)-odd, len(masters)), amber
	}
	return "masters   " + p.paint(summary, colour) + "\n" + listed(lines, "puppetsrvctl masters")
}

// listed joins lines, and says where the rest are if there are too many.
func listed(lines []string, command string) string {
	if len(lines) > maxListed {
		rest := len(lines) - maxListed
		lines = append(lines[:maxListed:maxListed], fmt.Sprintf("  and %d more: %s\n", rest, command))
	}
	return strings.Join(lines, "")
}

func (p Page) statusExpiring(all []admin.Expiry) string {
	if len(all) == 0 {
		return ""
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, p.wrap(fmt.Sprintf("  %-11s ", clean(e.Kind)), clean(strings.TrimSuffix(e.Subject, "."))+", "+p.when(e.Time)))
	}
	return "expiring  " + p.paint(fmt.Sprint(len(all)), amber) + "\n" + listed(lines, "puppetsrvctl status -o json")
}

func (p Page) statusProblems(all []admin.Problem) string {
	if len(all) == 0 {
		return "problems  " + p.paint("none", green) + "\n"
	}
	var lines []string
	worst := amber
	for _, problem := range all {
		colour := amber
		if problem.Severity == "error" {
			colour, worst = red, red
		}
		severity := clean(problem.Severity)
		block := p.wrap(fmt.Sprintf("  %-7s  ", severity), fmt.Sprintf("%s: %s", clean(problem.Subject), clean(problem.Text)))
		lines = append(lines, strings.Replace(block, severity, p.paint(severity, colour), 1))
	}
	return "problems  " + p.paint(fmt.Sprint(len(all)), worst) + "\n" + listed(lines, "puppetsrvctl status -o json")
}
