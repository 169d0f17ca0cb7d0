package node

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// move is everything that the conditions of making a master the camaster go by. What
// is made of it is made of nothing else.
type move struct {
	now      time.Time
	kind     admin.Kind // KindSwitchover also for its handover
	version  string     // of the register that is to be replaced
	handover string     // to whom the camaster hands over now, "" for nobody; for people
	looked   bool       // masters are probed
	alias    string     // the camaster's CNAME, with a final dot
	caTarget topology.CATarget
	from, to side
}

// side is a master in a move: the camaster that there is, or the next one.
type side struct {
	host        string // for people
	known       bool   // it is a master
	ca          bool
	datacenter  string
	drain       string         // who drains it and why
	unfit       string         // why it wants no work itself
	verdict     health.Verdict // of its own datacenter: from elsewhere a link may be cut
	certificate *health.Certificate
	member      *member // nil if none was ever heard
}

// member is what the member on a master's host said last.
type member struct {
	evidence *evidence.Evidence
	fresh    bool // it lives
	state    string
	since    time.Time // of state
	age      time.Duration
	boot     uint64
	said     time.Time // when the report was made, by its clock
	came     time.Time // and when it came here, by this host's
}

// stays reports whether the target is the camaster already.
func (m *move) stays() bool { return m.to.host == m.from.host }

// handing reports whether the camaster hands over to the target now.
func (m *move) handing() bool { return m.handover != "" && m.handover == m.to.host }

// move gathers what a move to a master goes by.
func (n api) move(p *picture, kind admin.Kind, to *topology.Master) move {
	t := p.plan.Topology
	m := move{
		now: p.time, kind: kind, version: p.registers.Version(camaster.Key).String(),
		looked: n.cfg.Probe != nil, alias: t.CamasterName, caTarget: t.CATarget,
		from: n.side(p, p.camaster()), to: n.side(p, to.Host),
	}
	if v, _, ok := camaster.Of(p.registers); ok {
		m.handover = host(v.Handover)
	}
	return m
}

func (n api) side(p *picture, name string) side {
	s := side{host: host(name)}
	if peer := p.member(name); peer != nil {
		s.member = memberOf(peer, p.time)
	}
	m := p.plan.Topology.Master(name)
	if m == nil {
		return s
	}
	i := p.plan.index[name]
	s.known, s.ca, s.datacenter = true, m.CA, m.Datacenter
	s.verdict, s.certificate = p.view.Masters[i].In(n.datacenter(p, m.Datacenter)), p.states[i].Certificate
	if e, ok := p.drain(name); ok {
		s.drain = fmt.Sprintf("%s (%s)", e.Actor, e.Reason)
	}
	s.unfit = p.unfit(name)
	return s
}

func memberOf(peer *cluster.Peer, now time.Time) *member {
	return &member{
		evidence: peer.Report.Member, fresh: peer.Fresh, state: peer.Status.String(), since: peer.Since,
		age: max(now.Sub(peer.Heard), 0), boot: peer.Report.Boot, said: peer.Report.Time, came: peer.Reported,
	}
}

// Master implements admin.Backend.
func (n api) Master(name string) (admin.Master, error) {
	p := n.current()
	m, err := p.master(name)
	if err != nil {
		return admin.Master{}, err
	}
	return n.masterView(p, p.plan.index[m.Host], n.priorities(p)), nil
}

// memberView is the member on a master's host for the API, nil if none was ever heard.
func (p *picture) memberView(name string, now time.Time) *admin.MasterMember {
	peer := p.member(name)
	if peer == nil {
		return nil
	}
	return &admin.MasterMember{
		Name: peer.Name, State: peer.Status.String(), Since: peer.Since.UTC(), Release: peer.Report.Release,
		Fresh: peer.Fresh, Age: max(now.Sub(peer.Heard).Seconds(), 0), Evidence: *peer.Report.Member,
	}
}

// Plan implements admin.Backend.
func (n api) Plan(kind admin.Kind, to string) (admin.Plan, error) {
	p := n.look()
	target, err := p.master(to)
	if err != nil {
		return admin.Plan{}, err
	}
	m := n.move(p, kind, target)
	return m.plan(), nil
}

// plan is what is to be done, and what is in the way.
func (m *move) plan() admin.Plan {
	p := admin.Plan{
		Kind: m.kind, From: m.from.host, To: m.to.host, Version: m.version, Handover: m.handing() && m.kind == admin.KindSwitchover,
		Conditions: m.conditions(), Loss: m.loss(), Steps: m.steps(),
	}
	p.Possible = !slices.ContainsFunc(p.Conditions, func(c admin.Condition) bool { return c.Refuses(false, false) })
	return p
}

// refusals are the conditions that refuse a write, as they are told. Plain setting has
// one way to insist only.
func (m *move) refusals(set *admin.SetCamaster) (refusals []string) {
	accepts := set.AcceptDataLoss || set.Force && m.kind == admin.KindSet
	for _, c := range m.conditions() {
		if !c.Refuses(accepts, set.Force) {
			continue
		}
		if c.Passed == admin.PassAcceptDataLoss && m.kind != admin.KindSet {
			c.Detail += " (accept-data-loss passes over this)"
		}
		refusals = append(refusals, c.Detail)
	}
	return refusals
}

// accepted is the loss that a write accepts, "" where nothing was to be accepted.
func (m *move) accepted(set *admin.SetCamaster) string {
	if !set.AcceptDataLoss || !slices.ContainsFunc(m.conditions(), func(c admin.Condition) bool {
		return !c.OK && !c.Warning && c.Passed == admin.PassAcceptDataLoss
	}) {
		return ""
	}
	return m.loss().Detail
}

// loss is what is lost of the database.
func (m *move) loss() admin.Loss {
	pg := m.to.postgreSQL()
	switch {
	case m.stays():
		return admin.Loss{Known: true, Detail: "nothing: it is the camaster already"}
	case m.kind == admin.KindSwitchover && m.handing():
		return m.handoverLoss()
	case m.kind == admin.KindSwitchover:
		return admin.Loss{Known: true, Detail: "nothing: the old camaster is closed first, and the new one waits until it has everything"}
	case pg == nil && m.to.member != nil && m.from.member != nil && m.from.postgreSQL() == nil:
		return admin.Loss{Known: true, Detail: "nothing of a database: the members know of none"}
	case pg == nil:
		return admin.Loss{Detail: fmt.Sprintf("not known: no member on %s says anything of a database", m.to.host)}
	}
	bytes, known := m.lag()
	switch {
	case known:
		return m.since(admin.Loss{Known: true, Bytes: bytes, Detail: missingBytes(bytes)})
	case pg.Current.IsZero():
		return admin.Loss{Detail: fmt.Sprintf("not known: the database of %s has never heard of its primary", m.to.host)}
	}
	return m.since(admin.Loss{Detail: "not known in bytes"})
}

// lag is how many bytes of its log, as far as anybody heard of them, the camaster had
// written and the target has not received. While the target streams from a camaster
// that lives, its own two numbers are of one moment; those of two reports are not, and
// under load would show what was written between them.
func (m *move) lag() (bytes uint64, known bool) {
	pg := m.to.postgreSQL()
	if pg == nil {
		return 0, false
	}
	if m.kind == admin.KindSwitchover && pg.Streaming {
		return pg.Lag()
	}
	whole := *pg
	if from := m.from.postgreSQL(); from != nil && (from.System == "" || from.System == pg.System) {
		whole.PrimaryWritten = max(whole.PrimaryWritten, from.Written)
		// One that was started again in recovery has what it wrote before. On another
		// timeline the same number is another place.
		if from.Role != "primary" && from.Timeline == pg.Timeline {
			whole.PrimaryWritten = max(whole.PrimaryWritten, logEnd(from))
		}
	}
	return whole.Lag()
}

// steps are those of the nodes, and of the members as far as nodes know them.
func (m *move) steps() []admin.PlanStep {
	var steps []admin.PlanStep
	add := func(s side, service, name, format string, args ...any) {
		steps = append(steps, admin.PlanStep{Host: s.host, Service: service, Name: name, Detail: fmt.Sprintf(format, args...)})
	}
	open := func() {
		add(side{}, "", "DNS", "every node answers %s for %s", m.to.host, host(m.alias))
		for _, s := range m.to.services() {
			add(m.to, s.Name, "open", "%s", stateOf(s))
		}
	}
	switch {
	case m.stays():
		return steps
	case m.kind == admin.KindFailover:
		add(side{}, "", "write", "%s is camaster in place of %s, with the epoch raised", m.to.host, m.from.host)
		open()
		add(m.from, "", "close", "the moment its member sees the new version; `puppetsrvctl rejoin %s` then makes it a standby", m.from.host)
		return steps
	}
	if !m.handing() {
		add(m.from, "", "drain", "agents go to other masters meanwhile")
		add(side{}, "", "write", "%s hands over to %s; DNS stays", m.from.host, m.to.host)
	}
	for _, s := range slices.Backward(m.from.services()) {
		add(m.from, s.Name, "close", "%s", stateOf(s))
	}
	add(m.to, "", "wait", "until it has everything that %s has", m.from.host)
	add(side{}, "", "write", "%s is camaster in place of %s", m.to.host, m.from.host)
	open()
	add(m.from, "", "standby", "it follows %s", m.to.host)
	add(m.from, "", "undrain", "unless it was drained before")
	return steps
}

// services are those of a side's role, one without a name if none are known.
func (s *side) services() []evidence.Service {
	if r := s.role(); r != nil && len(r.Services) > 0 {
		return r.Services
	}
	return []evidence.Service{{}}
}

func stateOf(s evidence.Service) string {
	if s.State == "" {
		return ""
	}
	return strings.TrimSuffix("now "+s.State+": "+s.Detail, ": ")
}

func (s *side) role() *evidence.Role {
	if s.member == nil {
		return nil
	}
	return s.member.evidence.Role
}

func (s *side) postgreSQL() *evidence.PostgreSQL {
	if s.member == nil {
		return nil
	}
	return s.member.evidence.PostgreSQL
}

func (s *side) authority() *evidence.CA {
	if s.member == nil {
		return nil
	}
	return s.member.evidence.CA
}

func (s *side) puppetDB() *evidence.PuppetDB {
	if s.member == nil {
		return nil
	}
	return s.member.evidence.PuppetDB
}

// camasterWrite is the value of the camaster's register, with what the history shows of
// how it came to be.
type camasterWrite struct {
	camaster.Value
	Kind     admin.Kind `json:"kind,omitempty"`
	Accepted string     `json:"accepted,omitempty"` // the loss of data
	// Raised: the epoch was raised because it is a failover, and no rule was passed over.
	Raised bool `json:"raised,omitempty"`
}

func parseCamaster(value json.RawMessage) (w camasterWrite, ok bool) {
	ok = json.Unmarshal(value, &w) == nil && w.Host != ""
	return w, ok
}

// silence is how a member is that is not fresh.
func (b *member) silence() string {
	if b.state == gossip.Alive.String() {
		return fmt.Sprintf("not heard for %s", b.age.Round(time.Second))
	}
	return fmt.Sprintf("%s since %s", cmp.Or(b.state, "gone"), b.since.UTC().Format(time.RFC3339))
}
