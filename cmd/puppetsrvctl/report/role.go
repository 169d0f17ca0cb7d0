package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// role is a master's part: the camaster's, a standby's, or what its member makes of it.
func role(m admin.Master) cell {
	r := m.Role()
	switch {
	case m.Camaster && (r == nil || r.State == evidence.Open):
		return cell{"camaster", bold}
	case m.Camaster:
		return cell{"camaster, " + clean(r.State), amber}
	case r != nil && (r.State == evidence.Open || r.State == evidence.Opening || r.State == evidence.Failed):
		return cell{clean(r.State), red}
	case r != nil && r.State != evidence.Standby:
		return cell{clean(r.State), amber}
	case r != nil, m.CA:
		return text("standby")
	}
	return text("-")
}

// roleNotes are what is to be said of a master's member and its role; camaster has the
// code that is compared with, and may be nil.
func (p Page) roleNotes(m admin.Master, camaster *admin.Master) []string {
	if m.Member == nil {
		return nil
	}
	var all []string
	if !m.Member.Fresh {
		all = append(all, fmt.Sprintf("its member is %s, not heard for %s", clean(m.Member.State), Short(seconds(m.Member.Age))))
	}
	if r := m.Role(); r != nil {
		all = append(all, roleState(r, m.Camaster))
	}
	if s := p.replicas(m); s != "" && !m.Camaster {
		all = append(all, s)
	}
	if camaster != nil && camaster.Member != nil && host(camaster.Host) != host(m.Host) {
		if differ := otherCode(m.Member.Evidence.Code, camaster.Member.Evidence.Code); differ != "" {
			all = append(all, "other code than the camaster: "+differ)
		}
	}
	return all
}

// roleState is a role's state in a few words.
func roleState(r *evidence.Role, camaster bool) string {
	reason := ""
	if r.Reason != "" {
		reason = ": " + clean(r.Reason)
	}
	switch {
	case r.State == evidence.Open:
		text := "open under " + clean(r.Version)
		if !camaster {
			text += ", and it is not the camaster"
		}
		return text
	case r.Former || r.State == evidence.Closed && !camaster:
		return "closed: rejoin makes it a standby"
	case r.State == evidence.Waiting && len(r.Waits) > 0:
		return "waits for " + clean(strings.Join(r.Waits, ", "))
	}
	return clean(r.State) + reason
}

// replicas are how far a standby is the same as the camaster; "" where that is not known.
func (p Page) replicas(m admin.Master) string {
	if m.Member == nil {
		return ""
	}
	e := m.Member.Evidence
	var all []string
	if pg := e.PostgreSQL; pg != nil {
		lag, known := pg.Lag()
		switch {
		case pg.Role != "standby":
			all = append(all, "database "+clean(pg.Role))
		case !known:
			all = append(all, "database lag not known")
		default:
			text := "database " + size(lag) + " behind"
			if !pg.Current.IsZero() {
				text += ", current " + p.ago(pg.Current)
			}
			if !pg.Streaming {
				text += ", not connected"
			}
			all = append(all, text)
		}
	}
	if ca := e.CA; ca != nil {
		switch {
		case !ca.Complete:
			all = append(all, "CA not complete")
		case ca.Error != "":
			all = append(all, "CA does not follow, the same "+p.ago(ca.Synced))
		case !ca.Synced.IsZero():
			all = append(all, "CA the same "+p.ago(ca.Synced))
		}
	}
	return strings.Join(all, ", ")
}

// otherCode names the environments with other code, a few of them.
func otherCode(here, there []evidence.Environment) string {
	const most = 3
	theirs := make(map[string]string)
	for _, e := range there {
		theirs[e.Name] = e.Revision
	}
	var names []string
	for _, e := range here {
		if revision, ok := theirs[e.Name]; !ok || revision != e.Revision {
			names = append(names, clean(e.Name))
		}
		delete(theirs, e.Name)
	}
	for _, e := range there {
		if _, left := theirs[e.Name]; left {
			names = append(names, clean(e.Name))
		}
	}
	if len(here) == 0 || len(there) == 0 {
		return ""
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// size is a number of bytes for people.
func size(n uint64) string {
	const kib = 1 << 10
	switch {
	case n < 10*kib:
		return fmt.Sprintf("%d B", n)
	case n < 10*kib*kib:
		return fmt.Sprintf("%d KiB", n/kib)
	}
	return fmt.Sprintf("%d MiB", n/kib/kib)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// statusRole is the camaster's role, where its member is known.
func (p Page) statusRole(m admin.Master) string {
	r := m.Role()
	if r == nil {
		return ""
	}
	word, colour := clean(r.State), green
	if r.State != evidence.Open {
		colour = amber
	}
	rest := " under " + clean(r.Version)
	var services []string
	for _, s := range r.Services {
		services = append(services, clean(s.Name)+" "+clean(s.State))
	}
	if len(services) > 0 {
		rest += ": " + strings.Join(services, ", ")
	}
	if r.Reason != "" {
		rest += "; " + clean(r.Reason)
	}
	if !m.Member.Fresh {
		rest += fmt.Sprintf(", as its member said last, %s ago", Short(seconds(m.Member.Age)))
	}
	return p.wrapPainted("role      ", word, colour, rest)
}
