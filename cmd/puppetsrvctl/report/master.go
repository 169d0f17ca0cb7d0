package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

const (
	puppetPort    = 8140
	defaultWeight = 10
	// renewal is how long before its end a certificate is worth a note.
	renewal = 30 * 24 * time.Hour
)

// Masters is every master with its verdict for each datacenter, and below what is
// not usual about some; with evidence, also what each observer says.
func (p Page) Masters(masters []admin.Master, evidence bool) string {
	if len(masters) == 0 {
		return "no masters\n"
	}
	var datacenters []string
	for _, m := range masters {
		for _, v := range m.Verdicts {
			if !slices.Contains(datacenters, v.Datacenter) {
				datacenters = append(datacenters, v.Datacenter)
			}
		}
	}
	header := []string{"MASTER", "STANDS IN", "ROLE"}
	for _, d := range datacenters {
		header = append(header, "FOR "+strings.ToUpper(clean(d)))
	}
	var rows [][]cell
	var notes strings.Builder
	var camaster *admin.Master
	for i := range masters {
		if masters[i].Camaster {
			camaster = &masters[i]
		}
	}
	for _, m := range masters {
		row := []cell{text(host(m.Host)), text(or(m.Datacenter)), role(m)}
		for _, d := range datacenters {
			row = append(row, verdict(m, d))
		}
		rows = append(rows, row)
		if note := p.note(m, camaster); note != "" {
			notes.WriteString(p.wrap("  "+host(m.Host)+"  ", note))
		}
	}
	var b strings.Builder
	b.WriteString(p.table("", header, rows))
	if notes.Len() > 0 {
		b.WriteString("\nnotes\n" + notes.String())
	}
	if !evidence {
		return b.String()
	}
	for _, m := range masters {
		b.WriteString("\n" + p.paint(host(m.Host), bold) + "\n")
		b.WriteString(p.evidence(m))
	}
	return b.String()
}

// verdict is what holds for the agents of one datacenter.
func verdict(m admin.Master, datacenter string) cell {
	for _, v := range m.Verdicts {
		switch {
		case v.Datacenter != datacenter:
		case !v.Listed:
			return cell{"left out", red}
		case v.Down:
			return cell{fmt.Sprintf("down %d", v.Priority), red}
		case m.Drain != nil:
			return cell{fmt.Sprintf("drained %d", v.Priority), amber}
		default:
			return cell{fmt.Sprintf("up %d", v.Priority), green}
		}
	}
	return text("-")
}

// note is what is not usual about a master, the conditions first.
func (p Page) note(m admin.Master, camaster *admin.Master) string {
	var all []string
	for _, c := range conditions(m) {
		all = append(all, c.word+c.rest(p))
	}
	all = append(all, p.roleNotes(m, camaster)...)
	if m.Joined {
		all = append(all, "joined by itself")
	}
	if m.Port != puppetPort {
		all = append(all, fmt.Sprintf("port %d", m.Port))
	}
	if m.Weight != defaultWeight {
		all = append(all, fmt.Sprintf("weight %d", m.Weight))
	}
	if c := m.Certificate; c != nil {
		switch {
		case !c.Trusted:
			all = append(all, "its certificate is not trusted")
		case c.NotAfter.Sub(p.Now) < renewal:
			all = append(all, "its certificate ends "+p.when(c.NotAfter))
		}
	}
	return strings.Join(all, "; ")
}

func (p Page) evidence(m admin.Master) string {
	if len(m.Evidence) == 0 {
		return "  nobody has looked at it yet\n"
	}
	var rows [][]cell
	for _, e := range m.Evidence {
		state := cell{"up", green}
		if e.Down {
			state = cell{"down", red}
		}
		counts := "yes"
		if e.Ignored != "" {
			counts = "no: " + e.Ignored
		}
		rows = append(rows, []cell{
			text(e.Observer), text(or(e.Datacenter)), state, text(p.ago(e.Since)),
			text(Short(time.Duration(e.Age*float64(time.Second))) + " ago"), text(counts), text(because(e.Reason, e.Detail)),
		})
	}
	return p.table("  ", []string{"OBSERVER", "IN", "SEES", "SINCE", "LOOKED", "COUNTS", "WHY"}, rows)
}
