package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// checklist gathers conditions. Each says what was seen, and one that is not met also
// what would put it right.
type checklist []admin.Condition

func (c *checklist) met(name, format string, args ...any) {
	*c = append(*c, admin.Condition{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)})
}

func (c *checklist) unmet(name, passed, format string, args ...any) {
	*c = append(*c, admin.Condition{Name: name, Passed: passed, Detail: fmt.Sprintf(format, args...)})
}

func (c *checklist) warn(name, format string, args ...any) {
	*c = append(*c, admin.Condition{Name: name, Warning: true, Detail: fmt.Sprintf(format, args...)})
}

// waits makes the newest condition one that may come true by itself.
func (c *checklist) waits() { (*c)[len(*c)-1].Waits = true }

const (
	force  = admin.PassForce
	accept = admin.PassAcceptDataLoss
)

// conditions are what has to be so before the target is made the camaster, unless an
// operator insists. See DESIGN, "The camaster".
func (m *move) conditions() []admin.Condition {
	var c checklist
	switch {
	case m.kind == admin.KindSwitchover && m.stays():
		c.unmet("another host", "", "%s is the camaster already: there is nothing to do", m.to.host)
	case m.handover != "" && !m.handing() && m.kind == admin.KindSwitchover:
		c.unmet("another handover", "", "%s hands over to %s: finish that by `puppetsrvctl switchover --to %[2]s`, or end it by `puppetsrvctl switchover --abort`", m.from.host, m.handover)
	}
	switch {
	case m.kind == admin.KindFailover && !m.stays():
		m.lost(&c)
	case m.kind == admin.KindSwitchover && m.handing():
		m.closed(&c)
	case m.kind == admin.KindSwitchover && !m.stays():
		m.open(&c)
	case m.kind == admin.KindSet && !m.stays():
		m.closable(&c)
	}
	m.target(&c)
	if !m.heard(&c) {
		return c
	}
	m.standby(&c)
	return c
}

// target is what everybody can see of the target.
func (m *move) target(c *checklist) {
	s := &m.to
	if s.ca {
		c.met("CA-capable", "%s may become the camaster", s.host)
	} else {
		c.unmet("CA-capable", force, "%s is not CA-capable: its `master` line has no `ca`", s.host)
	}
	switch {
	case m.stays() && m.handover != "":
		// It is drained for the handover, which this write ends.
	case s.drain != "":
		c.unmet("not drained", force, "%s is drained by %s: `puppetsrvctl undrain %[1]s` ends that", s.host, s.drain)
	case s.unfit != "":
		c.unmet("not drained", force, "%s wants no work: %s", s.host, s.unfit)
	default:
		c.met("not drained", "%s takes work", s.host)
	}
	if !m.looked {
		return // nobody looks, and nothing is known
	}
	if s.verdict.Down {
		c.unmet("up", force, "%s is down: %s", s.host, s.verdict.Detail)
	} else {
		c.met("up", "%s is up, as %s sees it", s.host, s.datacenter)
	}
	if s.certificate == nil {
		c.unmet("certificate", force, "%s has not shown its certificate to this node yet", s.host)
		return
	}
	missing := slices.DeleteFunc(m.names(), func(name string) bool { return s.certificate.ValidFor(name, m.now) })
	for _, name := range missing {
		who := "agents"
		if name == m.alias && m.caTarget != topology.CATargetCamaster {
			who = "PuppetDB's clients"
		}
		c.unmet("certificate", force, "%s has no certificate that is valid for %s: %s would not accept it; issue one with that name in dns_alt_names", s.host, host(name), who)
	}
	if len(missing) == 0 {
		c.met("certificate", "valid for %s", strings.Join(hosts(m.names()), " and "))
	}
}

// names are those under which the camaster's services are found.
func (m *move) names() []string {
	names := []string{m.to.host + "."}
	if m.caTarget == topology.CATargetCamaster || m.to.puppetDB() != nil {
		names = append(names, m.alias)
	}
	return names
}

func hosts(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = host(name)
	}
	return all
}

// heard asks for a member, and reports whether there is one that says something. A
// plain write goes without, as where no members are at all.
func (m *move) heard(c *checklist) bool {
	b := m.to.member
	switch {
	case b == nil && m.kind == admin.KindSet:
		return false
	case b == nil:
		c.unmet("member", force, "no member is known on %s: the CA and the database are moved by hand there", m.to.host)
		return false
	case !b.fresh:
		c.unmet("member", force, "the member on %s is %s: start it, nothing opens the role without it", m.to.host, b.silence())
	default:
		c.met("member", "alive, heard %.1f s ago", b.age.Seconds())
	}
	return true
}

// closable wants somebody to close the camaster where members open the next one: else
// two would sign.
func (m *move) closable(c *checklist) {
	const name = "camaster closes"
	s := &m.from
	up := m.looked && s.known && !s.verdict.Down
	switch {
	case m.to.role() == nil:
		// Nothing is opened by a member.
	case s.member != nil && s.member.fresh:
		c.met(name, "the member on %s is alive, and closes it", s.host)
	case !up:
		c.met(name, "%s is not up", s.host)
	case s.member != nil:
		c.unmet(name, force, "%s is up, and its member, which would close it, is %s: start that, or stop the host", s.host, s.member.silence())
	default:
		c.unmet(name, force, "%s is up, and no member is known that would close it: stop its services by hand", s.host)
	}
}

// lost wants the camaster to be down: one that is up can hand over, and one that nobody
// closes goes on to write.
func (m *move) lost(c *checklist) {
	const name = "camaster lost"
	s := &m.from
	alive := s.member != nil && s.member.fresh
	down := m.looked && s.known && s.verdict.Down
	blind := !m.looked || !s.known // nobody can say that it is up
	switch {
	case down && alive:
		c.met(name, "%s is down: %s; its member is alive and closes it, so `switchover` may do too, and loses nothing", s.host, s.verdict.Detail)
	case down && s.member != nil:
		c.met(name, "%s is down: %s; its member is %s", s.host, s.verdict.Detail, s.member.silence())
	case down:
		c.met(name, "%s is down: %s", s.host, s.verdict.Detail)
	case blind && !alive:
		c.met(name, "nothing is heard of %s", s.host)
	case alive:
		c.unmet(name, force, "%s is up and its member is alive: use `puppetsrvctl switchover --to %s`, which loses nothing", s.host, m.to.host)
		c.waits()
	case s.member != nil:
		c.unmet(name, force, "%s is up, and its member, which would close it, is %s: start that and use `switchover`, or stop the host", s.host, s.member.silence())
		c.waits()
	default:
		c.unmet(name, force, "%s is up, and no member is known that would close it: stop its services by hand", s.host)
		c.waits()
	}
}

// open wants a camaster that can hand over.
func (m *move) open(c *checklist) {
	const name = "camaster open"
	s := &m.from
	r := s.role()
	switch {
	case s.member == nil || !s.member.fresh:
		how := "not known"
		if s.member != nil {
			how = s.member.silence()
		}
		c.unmet(name, "", "the member on %s is %s, and cannot close its role: start it, or use `puppetsrvctl failover --to %s` if the host is lost", s.host, how, m.to.host)
	case m.version == "0":
		c.unmet(name, "", "the camaster was never set: `puppetsrvctl camaster set %s` once", s.host)
	case r == nil:
		c.unmet(name, "", "the member on %s holds no role: see `roles` in its configuration", s.host)
	case r.State != evidence.Open || r.Version != m.version:
		c.unmet(name, force, "the role on %s is %s under %s: %s", s.host, r.State, r.Version, cmp.Or(r.Reason, "it should be open under "+m.version))
		c.waits()
	default:
		c.met(name, "%s is open under %s", s.host, r.Version)
	}
}

// closed wants that nothing is open on the camaster any more, under the version that
// hands over. Its last word counts: under that version it does not open again.
func (m *move) closed(c *checklist) {
	const name = "camaster closed"
	s := &m.from
	r := s.role()
	switch {
	case r == nil:
		c.unmet(name, force, "nothing is heard of the role on %s", s.host)
	case r.Version != m.version || r.State != evidence.Closed && r.State != evidence.Standby:
		c.unmet(name, force, "the role on %s is %s under %s%s", s.host, r.State, r.Version, after(": ", r.Reason))
		if !s.member.fresh {
			(*c)[len(*c)-1].Detail += "; its member is " + s.member.silence()
		}
	default:
		var open []string
		for _, service := range r.Services {
			if service.State != "closed" && service.State != "standby" {
				open = append(open, service.Name+" is "+service.State)
			}
		}
		if len(open) == 0 && r.Unclean != "" {
			// It stays so: what would bring the rest is the host that is closed.
			c.unmet(name, accept, "everything on %s is closed under %s, but what it wrote may not all be on %s: %s; `puppetsrvctl switchover --abort` opens it again", s.host, r.Version, m.to.host, r.Unclean)
			return
		}
		if len(open) == 0 {
			c.met(name, "everything on %s is closed under %s", s.host, r.Version)
			return
		}
		c.unmet(name, force, "on %s %s", s.host, strings.Join(open, ", "))
	}
	c.waits()
}

func after(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
