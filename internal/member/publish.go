package member

import (
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
	looks := make(chan look)
	m.done.Go(func() { m.runLooks(looks) })
	tick := time.NewTicker(time.Second) // for the watchdog, and for what time alone changes
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case l := <-looks:
			m.mu.Lock()
			m.looked, m.lookBegan, m.at = l.evidence, l.began, time.Now()
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
}

// runLooks looks without holding up what is to be told meanwhile.
func (m *Member) runLooks(looks chan<- look) {
	for {
		began := time.Now()
		e := m.gatherer.Look(m.ctx)
		select {
		case looks <- look{began, e}:
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
	e = m.looked
	e.Drain = m.drained
	e.Role = m.roleStatus()
	// Others go by what is told with it of the database and the CA, which has to be as
	// new: what was closed after this look began is being closed.
	if r := e.Role; r != nil && r.State != m.roleWas {
		m.roleWas, m.roleAt = r.State, time.Now()
	}
	if r := e.Role; r != nil && m.roleAt.After(m.lookBegan) && (r.State == evidence.Closed || r.State == evidence.Standby) {
		r.State, r.Reason = evidence.Closing, "what it left is being looked at"
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
