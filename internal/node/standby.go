package node

import (
	"cmp"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// standby is what the target's member says: whether the host has all that a camaster
// needs, and how far it is the same as the camaster's.
func (m *move) standby(c *checklist) {
	m.following(c)
	m.set(c)
	if !m.stays() {
		m.inStep(c)
		m.database(c)
	}
	m.service(c)
	m.crl(c)
	if !m.stays() {
		m.code(c)
	}
}

// following asks for the role that can be opened.
func (m *move) following(c *checklist) {
	const name = "role"
	s, r := &m.to, m.to.role()
	switch {
	case r == nil:
		c.unmet(name, force, "the member on %s holds no role: see `roles` in its configuration", s.host)
	case m.stays():
		c.met(name, "%s", r.State)
	case r.State == evidence.Closed && !r.Former:
		c.unmet(name, force, "the role on %s is closed under %s, and follows nobody%s", s.host, r.Version, after(": ", r.Reason))
		c.waits()
	case r.Former:
		c.unmet(name, force, "%s was the camaster under %s and is closed: `puppetsrvctl rejoin %[1]s` makes it a standby", s.host, cmp.Or(r.Opened, "an older version"))
	case r.State == evidence.Failed:
		c.unmet(name, force, "the role on %s fails: %s", s.host, r.Reason)
	case r.State == evidence.Waiting && s.member.boot == 0:
		c.unmet(name, force, "%s has just started and waits for %s", s.host, strings.Join(r.Waits, ", "))
		c.waits()
	case r.State == evidence.Waiting:
		c.met(name, "%s has just started%s; it opens all the same, because the write is for this very start of it", s.host, after(" and has not heard ", strings.Join(r.Waits, ", ")))
	case r.State != evidence.Standby:
		c.unmet(name, force, "the role on %s is %s under %s%s", s.host, r.State, r.Version, after(": ", r.Reason))
		c.waits()
	default:
		c.met(name, "standby%s", after(", and it has not heard ", strings.Join(r.Waits, ", ")))
	}
}

// set wants a CA that puppetserver can go on with.
func (m *move) set(c *checklist) {
	const name = "CA set"
	s, ca := &m.to, m.to.authority()
	switch {
	case ca == nil && m.from.authority() == nil:
		// The CA is not the members' business here.
	case ca == nil:
		c.unmet(name, force, "the member on %s knows no CA: see `roles` in its configuration", s.host)
	case !ca.Complete:
		c.unmet(name, force, "the CA's files on %s are not complete: %s", s.host, cmp.Or(ca.Problem, "they have not been verified yet"))
	default:
		c.met(name, "complete and verified, %d certificates, next serial %s", ca.Signed, ca.Serial)
	}
}

// inStep wants that what the camaster signed and revoked is on the target.
func (m *move) inStep(c *checklist) {
	name := "CA in step"
	to, from := m.to.authority(), m.from.authority()
	if to == nil {
		return
	}
	synced := "it never was the same"
	if !to.Synced.IsZero() {
		synced = fmt.Sprintf("it was last the same %s", m.ago(to.Synced))
	}
	if m.kind == admin.KindSwitchover && m.handing() {
		switch {
		case from == nil || !from.Sealed:
			c.unmet(name, accept, "the CA on %s is not sealed yet", m.from.host)
			c.waits()
		case from.Hash == "" || from.Hash != to.Hash:
			c.unmet(name, accept, "%s does not have all of the CA yet%s", m.to.host, after(": ", to.Error))
			c.waits()
		default:
			c.met(name, "the same as on %s, which is sealed", m.from.host)
		}
		return
	}
	switch {
	case from != nil && from.Hash != "" && from.Hash == to.Hash:
		c.met(name, "the same as on %s, as that said last", m.from.host)
	case from != nil && ahead(to, from):
		c.met(name, "newer than what %s said last", m.from.host)
	case m.kind == admin.KindSwitchover && to.Error == "" && to.Complete:
		c.met(name, "it follows %s, and gets the rest before the flip", m.from.host)
	case m.kind == admin.KindSwitchover:
		c.unmet(name, force, "the CA does not follow that of %s, and the handover would wait for it: %s", m.from.host, cmp.Or(to.Error, to.Problem))
		c.waits()
	case from == nil:
		c.unmet(name, accept, "nothing is known of the CA on %s, so that it may have signed or revoked more; %s", m.from.host, synced)
	default:
		c.unmet(name, accept, "the CA on %s is another one than %s had (next serial %s, there %s): what was signed and revoked since is lost; %s%s",
			m.to.host, m.from.host, cmp.Or(to.Serial, "unknown"), cmp.Or(from.Serial, "unknown"), synced, after("; ", to.Error))
	}
}

// ahead reports whether a CA has all that another said last, and more: it was
// replicated after that. A standby's own files never grow.
func ahead(to, from *evidence.CA) bool {
	serial, serialOK := compare(to.Serial, from.Serial, 16)
	crl := 0
	crlOK := to.CRL == nil && from.CRL == nil
	if to.CRL != nil && from.CRL != nil {
		crl, crlOK = compare(to.CRL.Number, from.CRL.Number, 10)
	}
	return serialOK && crlOK && serial >= 0 && crl >= 0 && (serial > 0 || crl > 0)
}

func compare(a, b string, base int) (int, bool) {
	const most = 64 // digits: serial numbers have 40 (RFC 5280, 4.1.2.2)
	if len(a) > most || len(b) > most {
		return 0, false
	}
	x, ok := new(big.Int).SetString(a, base)
	y, okY := new(big.Int).SetString(b, base)
	if !ok || !okY {
		return 0, false
	}
	return x.Cmp(y), true
}

// database wants a standby of the camaster's database that has everything, or nearly.
func (m *move) database(c *checklist) {
	const name = "database"
	to, from := m.to.postgreSQL(), m.from.postgreSQL()
	switch {
	case to == nil && from == nil:
		return
	case to == nil:
		c.unmet(name, force, "the member on %s knows no PostgreSQL, and %s has one: see `roles` in its configuration", m.to.host, m.from.host)
		return
	case to.Role == "primary":
		c.unmet(name, force, "PostgreSQL on %s is a primary itself, and what it has is another history: `puppetsrvctl rejoin %[1]s` makes it a standby", m.to.host)
		return
	case to.Role != "standby":
		c.unmet(name, force, "PostgreSQL on %s is %s%s: it has to run as a standby", m.to.host, cmp.Or(to.Role, "unknown"), after(", ", to.Error))
		return
	case from != nil && from.System != "" && to.System != from.System:
		c.unmet(name, force, "PostgreSQL on %s is of another cluster (system identifier %s, on %s %s): make it anew from a base backup", m.to.host, cmp.Or(to.System, "unknown"), m.from.host, from.System)
		return
	case from != nil && to.Timeline < from.Timeline:
		c.unmet(name, force, "PostgreSQL on %s is on timeline %d, and %s was on %d: it does not follow", m.to.host, to.Timeline, m.from.host, from.Timeline)
		return
	}
	c.met(name, "PostgreSQL is a standby of the same cluster, on timeline %d", to.Timeline)
	m.replication(c, to)
}

func (m *move) replication(c *checklist, to *evidence.PostgreSQL) {
	const name = "replication"
	if m.kind == admin.KindSwitchover && m.handing() {
		m.received(c)
		return
	}
	bytes, known := m.lag()
	switch {
	case m.kind == admin.KindSwitchover && !to.Streaming:
		c.unmet(name, force, "PostgreSQL on %s is not connected to its primary, and the handover would wait for it%s", m.to.host, after(": ", to.Error))
		c.waits()
	case m.kind == admin.KindSwitchover && (!known || bytes > to.MaxLag):
		c.unmet(name, force, "PostgreSQL on %s is %s behind, and the handover would wait for it: more than %d bytes are not waited for", m.to.host, inBytes(bytes, known), to.MaxLag)
		c.waits()
	case !known:
		c.unmet(name, accept, "how far PostgreSQL on %s is behind is not known: it has never heard of its primary", m.to.host)
	case bytes > to.MaxLag:
		c.unmet(name, accept, "PostgreSQL on %s is %d bytes behind: more than max_lag, %d", m.to.host, bytes, to.MaxLag)
	default:
		c.met(name, "%d bytes behind, of %d at most; it had everything %s", bytes, to.MaxLag, m.ago(to.Current))
	}
}

func inBytes(n uint64, known bool) string {
	if !known {
		return "an unknown number of bytes"
	}
	return fmt.Sprintf("%d bytes", n)
}

// service wants a PuppetDB that comes up.
func (m *move) service(c *checklist) {
	const name = "PuppetDB"
	to := m.to.puppetDB()
	switch {
	case to == nil && m.from.puppetDB() == nil:
	case to == nil:
		c.unmet(name, force, "the member on %s knows no PuppetDB, and %s has one: see `roles` in its configuration", m.to.host, m.from.host)
	case to.Mode == "hot" && to.State != "running":
		c.unmet(name, force, "PuppetDB on %s is %s%s", m.to.host, cmp.Or(to.State, "unknown"), after(": ", to.Error))
		c.waits()
	case to.State == "error":
		c.unmet(name, force, "PuppetDB on %s is in error: %s", m.to.host, to.Error)
	default:
		c.met(name, "%s (%s)", to.State, to.Mode)
	}
}

// crl wants revocation lists that nobody refuses for their age.
func (m *move) crl(c *checklist) {
	const name = "CRL"
	e := m.to.member.evidence
	lists := []struct {
		what string
		crl  *evidence.CRL
	}{{"the CRL of " + m.to.host, e.CRL}}
	if e.CA != nil {
		lists = append(lists, struct {
			what string
			crl  *evidence.CRL
		}{"the CA's CRL on " + m.to.host, e.CA.CRL})
	}
	var next time.Time
	fine := false
	for _, l := range lists {
		switch {
		case l.crl == nil:
		case l.crl.Error != "":
			c.warn(name, "%s cannot be read: %s", l.what, l.crl.Error)
		case !l.crl.NextUpdate.IsZero() && !l.crl.NextUpdate.After(m.now):
			c.unmet(name, force, "%s has expired at %s: nobody would be let in; make a new one on the CA", l.what, l.crl.NextUpdate.UTC().Format(time.RFC3339))
		default:
			fine = true
			if n := l.crl.NextUpdate; next.IsZero() || !n.IsZero() && n.Before(next) {
				next = n
			}
		}
	}
	switch {
	case fine && next.IsZero():
		c.met(name, "there, and valid for ever")
	case fine:
		c.met(name, "valid until %s", next.UTC().Format(time.RFC3339))
	}
}

// code shows whether agents would get other catalogs.
func (m *move) code(c *checklist) {
	const name = "code"
	if m.from.member == nil {
		return
	}
	to, from := m.to.member.evidence.Code, m.from.member.evidence.Code
	if len(to) == 0 && len(from) == 0 {
		return
	}
	if differ := differing(to, from); len(differ) > 0 {
		c.warn(name, "other code than on %s: %s", m.from.host, strings.Join(differ, "; "))
		return
	}
	c.met(name, "the same as on %s", m.from.host)
}

// differing says in which environments two hosts have other code, a few of them.
func differing(here, there []evidence.Environment) (differ []string) {
	const most = 5
	theirs := make(map[string]string)
	for _, e := range there {
		theirs[e.Name] = e.Revision
	}
	for _, e := range here {
		revision, ok := theirs[e.Name]
		delete(theirs, e.Name)
		switch {
		case !ok:
			differ = append(differ, e.Name+" is here only")
		case revision != e.Revision:
			differ = append(differ, fmt.Sprintf("%s has %s here, %s there", e.Name, abbreviated(e.Revision), abbreviated(revision)))
		}
	}
	for _, e := range there {
		if _, left := theirs[e.Name]; left {
			differ = append(differ, e.Name+" is there only")
		}
	}
	if len(differ) > most {
		differ = append(differ[:most], fmt.Sprintf("and %d more", len(differ)-most))
	}
	return differ
}

// abbreviated is a revision as git abbreviates it.
func abbreviated(revision string) string {
	if len(revision) > 12 {
		return revision[:12]
	}
	return cmp.Or(revision, "an unknown revision")
}

// ago is how long ago something was, for people.
func (m *move) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(m.now.Sub(t), 0).Round(100*time.Millisecond).String() + " ago"
}
