package cluster

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

const (
	kindReport = "report"
	kindBeat   = "beat"
)

// Report is what one member says of itself and of what it sees. Only the newest one
// of each counts.
type Report struct {
	Observer   string    `json:"observer"`
	Role       Role      `json:"role"`
	Datacenter string    `json:"datacenter,omitempty"` // where it stands
	Release    string    `json:"release"`
	Started    time.Time `json:"started"`
	// Boot and Seq order an observer's reports: of its newest start the newest.
	Boot uint64 `json:"boot"`
	Seq  uint64 `json:"seq"`
	// Time is when it was sealed, by the observer's clock. One of long ago counts only
	// once there is a sign of life.
	Time time.Time `json:"time"`

	DNS      []string             `json:"dns,omitempty"` // where it answers, IP:port
	Masters  []Observed           `json:"masters,omitempty"`
	Zones    map[string]ZoneState `json:"zones,omitempty"` // by origin
	Camaster string               `json:"camaster,omitempty"`
	Version  string               `json:"version,omitempty"` // of the register that Camaster is from
	// Problems are what a person should look at on that member, one line each.
	Problems []string `json:"problems,omitempty"`
	// Member is what a master says of its own host.
	Member *evidence.Evidence `json:"member,omitempty"`
	// Announce is set by a master that makes itself known.
	Announce *Announcement `json:"announce,omitempty"`
}

// Observed is the own verdict of an observer on one master, of which it has evidence.
type Observed struct {
	Host   string        `json:"host"`
	Down   bool          `json:"down,omitempty"`
	Reason health.Reason `json:"reason,omitempty"`
	Detail string        `json:"detail,omitempty"`
	Since  time.Time     `json:"since,omitzero"` // by the observer's clock
}

// ZoneState is what a node answers for a zone.
type ZoneState struct {
	Serial uint32 `json:"serial"`
	Hash   string `json:"hash"`
}

// Announcement is what a master says of itself.
type Announcement struct {
	Host       string       `json:"host"` // its certname, with a final dot
	Datacenter string       `json:"datacenter"`
	Port       uint16       `json:"port"`
	Weight     uint16       `json:"weight"`
	CA         bool         `json:"ca,omitempty"`
	Addresses  []netip.Addr `json:"addresses,omitempty"`
}

type held struct {
	report *Report
	sealed *trust.Sealed // as it came, to be passed on
	heard  time.Time
	came   time.Time // the report itself
	signer string    // the certname that sealed it
	beat   uint64
	stale  bool // as of the last look
}

type reports struct {
	mu   sync.Mutex
	held map[string]*held // of others, by observer
	own  Report
	said *trust.Sealed // own, sealed; nil if that is to be done
	when time.Time     // of said
	beat uint64
	due  chan struct{} // own has changed
}

// newReports has a report that says nothing but who there is. It is sent if there is
// no other by the first sign of life: by it the others know a member as what it is.
func newReports(cfg *Config, started time.Time, boot uint64) *reports {
	r := &reports{held: make(map[string]*held), due: make(chan struct{}, 1)}
	r.own = Report{Observer: cfg.Name, Role: cfg.Role, Started: started, Boot: boot}
	return r
}

// Publish makes r, of which Observer, Role, Started, Boot and Seq are filled in,
// this member's report. Without a change nothing is sent.
func (c *Cluster) Publish(r Report) {
	rs := c.reports
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.Observer, r.Role, r.Started, r.Boot, r.Seq = c.cfg.Name, c.cfg.Role, c.started, rs.own.Boot, rs.own.Seq
	if reflect.DeepEqual(r, rs.own) {
		return
	}
	r.Seq++
	rs.own, rs.said = r, nil
	select {
	case rs.due <- struct{}{}:
	default:
	}
}

// spacing is the least time between two reports: many changes at once make few.
const spacing = 50 * time.Millisecond

// runBeat sends what Publish was given, and signs of life.
func (c *Cluster) runBeat() {
	tick := time.NewTicker(c.cfg.Beat)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
			c.sendBeat()
			continue
		case <-c.reports.due:
		}
		if m := c.ownReport(); m != nil {
			c.post(c.others(RoleNode), m)
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(spacing):
		}
	}
}

// ownReport is the message with the own report, nil if there is none.
func (c *Cluster) ownReport() *message {
	rs := c.reports
	rs.mu.Lock()
	r, said := rs.own, rs.said
	if time.Since(rs.when) > skew/2 { // its time would soon be too long ago
		said = nil
	}
	rs.mu.Unlock()
	id := c.policy.Load().Identity
	if r.Seq == 0 || c.pool == nil || id == nil {
		return nil
	}
	if said == nil {
		r.Time = time.Now()
		payload, err := deflate(&r)
		var s trust.Sealed
		if err == nil {
			s, err = id.Seal(kindReport, payload)
		}
		if err != nil {
			c.log.Warningf("report", "Cluster: cannot make a report: %s", err)
			return nil
		}
		said = &s
		rs.mu.Lock()
		if rs.own.Seq == r.Seq && rs.own.Boot == r.Boot {
			rs.said, rs.when = said, r.Time
		}
		rs.mu.Unlock()
	}
	return &message{Report: said}
}

// takeReport takes another member's report, from whomever it comes.
func (c *Cluster) takeReport(s *trust.Sealed) {
	r, signer, err := c.openReport(s)
	if err != nil {
		c.log.Refused("report", "Cluster: a report is refused: %s", err)
		return
	}
	if r.Observer == c.cfg.Name {
		c.outlive(r.Boot)
		return
	}
	rs := c.reports
	rs.mu.Lock()
	h := rs.held[r.Observer]
	beat := uint64(0)
	if h != nil && h.report.Boot == r.Boot {
		beat = h.beat
	}
	changed := h == nil || newer(r.Boot, r.Seq, h.report)
	if changed {
		h = &held{report: r, sealed: s, signer: signer, came: time.Now(), beat: beat, stale: true}
		if timely(r.Time) == nil {
			h.heard, h.stale = h.came, false
		}
		rs.held[r.Observer] = h
	}
	rs.mu.Unlock()
	if changed {
		c.cfg.Changed()
	}
}

// openReport understands a report, if its seal counts.
func (c *Cluster) openReport(s *trust.Sealed) (r *Report, signer string, err error) {
	p := c.policy.Load()
	if p.Authority == nil {
		return nil, "", errors.New("no CA is configured that could say who sent it")
	}
	who, err := p.Authority.Unseal(kindReport, *s, time.Now())
	if err != nil {
		return nil, "", err
	}
	if r, err = inflate(s.Payload); err == nil {
		err = c.judgeReport(r, who)
	}
	if err != nil {
		return nil, "", fmt.Errorf("of %s: %w", who, err)
	}
	if r.Role != RoleNode { // a master has no say in verdicts, answers and serials
		r.Masters, r.Zones, r.Camaster, r.Version = nil, nil, "", ""
	}
	if who != r.Observer { // only the host itself can know
		r.Member = nil
	}
	return r, who, nil
}

// judgeReport says why a report does not count that who has sealed, nil if it does.
func (c *Cluster) judgeReport(r *Report, who string) error {
	switch {
	case !c.admitted(r.Observer):
		return fmt.Errorf("the configuration does not know %.100q", r.Observer)
	case r.Role == RoleNode && !c.policy.Load().Signers(who):
		return fmt.Errorf("it is no node: `admin_allow sign %s` would make it one", who)
	case r.Announce != nil && r.Announce.Host != who+".":
		return fmt.Errorf("it announces %.100q: a master can only announce itself", r.Announce.Host)
	}
	return c.speaksFor(who, r.Observer)
}

// judgeAgain drops the reports that do not count any more under another policy.
func (c *Cluster) judgeAgain() {
	rs := c.reports
	rs.mu.Lock()
	defer rs.mu.Unlock()
	maps.DeleteFunc(rs.held, func(_ string, h *held) bool { return c.judgeReport(h.report, h.signer) != nil })
}

func newer(boot, seq uint64, than *Report) bool {
	return boot > than.Boot || boot == than.Boot && seq > than.Seq
}
