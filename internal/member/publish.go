package member

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// publish has the nodes told, soon.
func (m *Member) publish() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

// runPublish looks at the host at every interval, and tells the nodes what is new. What
// the role does is told at once, with the rest as it was last seen.
func (m *Member) runPublish() {
	looks, glances := make(chan look), make(chan look)
	m.done.Go(func() { m.runLooks(looks) })
	m.done.Go(func() { m.runGlances(glances) })
	tick := time.NewTicker(time.Second) // for the watchdog, and for what time alone changes
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case l := <-looks:
			m.mu.Lock()
			m.looked, m.at = l, time.Now()
			m.mu.Unlock()
		case l := <-glances:
			m.mu.Lock()
			m.glanced = l
			m.mu.Unlock()
		case <-m.due:
		case <-tick.C:
		}
		m.decide()
		m.cluster.Publish(m.report())
		m.pulse.Store(time.Now().UnixNano())
	}
}

type look struct {
	began    time.Time
	evidence evidence.Evidence
	late     bool // it did not end in time, and may have seen nothing
}

// runLooks looks without holding up what is to be told meanwhile.
func (m *Member) runLooks(looks chan<- look) {
	for {
		began := time.Now()
		e := m.gatherer.Look(m.ctx)
		select {
		case looks <- look{began: began, evidence: e}:
		case <-m.ctx.Done():
			return
		}
		// The role is being changed: others wait to see it.
		pause := m.settings().Interval
		if r := m.roleStatus(); r != nil && (r.State == evidence.Opening || r.State == evidence.Closing) {
			pause = min(pause, 100*time.Millisecond)
		}
		select {
		case <-time.After(pause - min(time.Since(began), pause/2)):
		case <-m.stirred:
		case <-m.ctx.Done():
			return
		}
	}
}

const (
	glanceTime  = time.Second            // that a look at the database and the CA alone may last
	glanceAgain = 100 * time.Millisecond // between two while the role is handed over to this host
)

// runGlances looks at the database and the CA alone: once the role has closed, and again
// and again while it is handed over to this host. Whoever decides how that goes on waits
// to be told of those two, and a look at everything lasts a second when something hangs,
// as a PuppetDB without its database does.
func (m *Member) runGlances(glances chan<- look) {
	for {
		var again <-chan time.Time
		if m.knowledge().Value.Handover == m.settings().Certname+"." {
			again = time.After(glanceAgain)
		}
		select {
		case <-m.awaited:
		case <-again:
		case <-m.ctx.Done():
			return
		}
		l, ok := m.glance()
		if !ok {
			continue // what is told is then from a look at everything
		}
		select {
		case glances <- l:
		case <-m.ctx.Done():
			return
		}
	}
}

// await has the database and the CA looked at, at once.
func (m *Member) await() {
	select {
	case m.awaited <- struct{}{}:
	default:
	}
}

// glance reports whether it saw the database and the CA in time. One that hangs is waited
// for, so that only one does.
func (m *Member) glance() (look, bool) {
	done := make(chan look, 1)
	go func() { // what looks at a disk may hang for ever
		ctx, cancel := context.WithTimeout(m.ctx, glanceTime)
		defer cancel()
		l := look{began: time.Now()}
		state := m.roleState(ctx)
		l.evidence.PostgreSQL, l.evidence.CA = state.PostgreSQL, state.CA
		l.late = ctx.Err() != nil
		done <- l
	}()
	select {
	case l := <-done:
		return l, !l.late
	case <-m.ctx.Done():
		return look{}, false
	}
}

// newest is what was seen last of everything, and when the look began that saw the
// database and the CA. The caller has the lock.
func (m *Member) newest() (e evidence.Evidence, began time.Time) {
	e, began = m.looked.evidence, m.looked.began
	if g := m.glanced; g.began.After(began) && !began.IsZero() {
		e.PostgreSQL, e.CA, began = g.evidence.PostgreSQL, g.evidence.CA, g.began
		if p, pg := e.PuppetDB, e.PostgreSQL; p != nil && pg != nil && p.Writes && (pg.Role != "primary" || pg.ReadOnly) {
			without := *p
			without.Writes = false
			e.PuppetDB = &without
		}
	}
	return e, began
}

// stir has the host looked at again at once.
func (m *Member) stir() {
	select {
	case m.stirred <- struct{}{}:
	default:
	}
	m.publish()
}

func (m *Member) roleStatus() *evidence.Role {
	if m.role == nil {
		return nil
	}
	r := m.role.Status()
	return &r
}

// evidence is the last look, with what the member itself does now.
func (m *Member) evidence() (e evidence.Evidence, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, began := m.newest()
	e.Drain = m.drained
	e.Role = m.roleStatus()
	// Others go by what is told with it of the database and the CA, which has to be as
	// new: what was closed after this look began is being closed.
	if r := e.Role; r != nil && r.State != m.roleWas {
		m.roleWas, m.roleAt = r.State, time.Now()
	}
	if r := e.Role; r != nil && m.roleAt.After(began) && (r.State == evidence.Closed || r.State == evidence.Standby) {
		r.State, r.Reason = evidence.Closing, "what it left is being looked at"
		if !m.looked.began.IsZero() { // else the first look at everything is under way
			m.await()
		}
	}
	return e, m.at
}

// report is what the nodes are told.
func (m *Member) report() cluster.Report {
	s := m.settings()
	e, _ := m.evidence()
	return cluster.Report{
		Datacenter: s.Datacenter, Release: m.release, Member: &e, Problems: m.problems(&e),
		Announce: &cluster.Announcement{
			Host: s.Certname + ".", Datacenter: s.Datacenter, Port: uint16(s.Port), Weight: uint16(s.Weight), CA: s.CA,
		},
	}
}

// Alarms: how soon before its end a thing is a problem.
const (
	crlSoon         = 7 * 24 * time.Hour
	certificateSoon = 30 * 24 * time.Hour
)

// What nodes take of one report, cluster's reportcodec.go.
const (
	maxProblems = 32
	maxProblem  = 1000
)

// problems are what a person should look at on this host.
func (m *Member) problems(e *evidence.Evidence) []string {
	var all []string
	say := func(format string, v ...any) { all = append(all, fmt.Sprintf(format, v...)) }
	now := time.Now()
	if c := e.CRL; c != nil {
		switch {
		case c.Error != "":
			say("the host's CRL: %s", c.Error)
		case !c.NextUpdate.IsZero() && c.NextUpdate.Before(now.Add(crlSoon)):
			say("the host's CRL expires at %s: agents and masters then refuse each other; is it renewed on the camaster?", c.NextUpdate.UTC().Format(time.RFC3339))
		}
	}
	if c := e.Certificate; c != nil && c.Error == "" && c.NotAfter.Before(now.Add(certificateSoon)) {
		say("the host's certificate expires at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if c := e.CA; c != nil {
		if c.Problem != "" {
			say("the CA's files: %s", c.Problem)
		}
		if c.Error != "" {
			say("the CA's files are not kept up to date: %s", c.Error)
		}
	}
	if r := e.Role; r != nil {
		switch {
		case r.State == evidence.Failed:
			say("the role: %s", r.Reason)
		case r.Former:
			say("was camaster until another one was made it: `puppetsrvctl rejoin %s` makes it a standby", m.settings().Certname)
		}
	}
	if m.reload != nil && m.reload.Problem() != "" {
		say("reload: %s", m.reload.Problem())
	}
	if _, err := m.cluster.Problem(); err != nil {
		say("what it is told is not kept over a restart: %s", err)
	}
	if e.PuppetDB != nil && e.PuppetDB.Error != "" {
		say("PuppetDB: %s", e.PuppetDB.Error)
	}
	slices.Sort(all)
	for i, p := range all {
		all[i] = strings.ToValidUTF8(p[:min(len(p), maxProblem)], "")
	}
	return all[:min(len(all), maxProblems)]
}

// status is for the host's own command.
func (m *Member) status() LocalStatus {
	e, at := m.evidence()
	k := m.knowledge()
	s := LocalStatus{
		Certname: m.settings().Certname, Release: m.release, Started: m.started, Camaster: m.camaster(), Version: k.Version.String(),
		Missing: k.Waits, Members: []LocalPeer{}, Evidence: e, Problems: m.problems(&e),
	}
	if !at.IsZero() {
		s.Age = time.Since(at).Seconds()
	}
	for _, p := range m.cluster.Peers() {
		if !p.Self {
			s.Members = append(s.Members, LocalPeer{p.Name, fmt.Sprint(p.Status)})
		}
	}
	return s
}
