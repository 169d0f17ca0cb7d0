// Package node is the runtime inside a DNS server: it joins probes, verdicts
// and zone content, and publishes one immutable snapshot after another. A
// runtime outlives the Corefile reload that does not change it; see registry.go.
//
// Data flows one way: the prober reports observations, [health] makes states of
// them, one goroutine renders what has changed and swaps an atomic pointer.
// Readers of the snapshot never lock or wait.
package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// patience is how long an answer waits for its serial to be reserved on disk.
const patience = 100 * time.Millisecond

// pulse is how often time is given its chance: evidence that has become too old,
// a disk that is back, files that have changed.
const pulse = time.Second

// Config is one configuration of a runtime.
type Config struct {
	// Key identifies it: runtimes with equal keys are one.
	Key string
	// Name is for logs and metrics: the first zone.
	Name string

	Plan       *zone.Plan // at first; see Watch
	Thresholds health.Thresholds
	// Probe is nil where nothing is to be probed; then everything stays up.
	Probe *Probe
	// State is the directory of durable state; "" keeps it in memory.
	State string
	// Watch is what may make another plan while it runs.
	Watch *Watch
	// Cluster is nil for a node that stands alone, without a register or an API.
	Cluster *Cluster

	Log   Logger
	Hooks Hooks
}

// Probe says how masters are probed.
type Probe struct {
	Check    probe.Check
	Schedule probe.Schedule
	Targets  []probe.Target // as Topology.Masters
}

// maxAge is the age at which evidence is none: ten missed looks, and not less
// than half a minute, nor than it takes to look at every master three times if
// none of them answers.
func (p *Probe) maxAge() time.Duration {
	rounds := time.Duration(1 + len(p.Targets)/max(p.Schedule.Concurrency, 1))
	return max(10*(p.Schedule.Interval+p.Schedule.Timeout), 3*rounds*p.Schedule.Timeout, 30*time.Second)
}

// Logger is what a runtime needs of a log.
type Logger interface {
	Infof(format string, v ...any)
	Warningf(format string, v ...any)
	Errorf(format string, v ...any)
}

// Hooks are called from the runtime's goroutines; they must not block. Each may
// be nil.
type Hooks struct {
	Probed func(health.Observation)
	Built  func(time.Duration)
}

// Node is a running runtime. Its methods are safe for concurrent use.
type Node struct {
	cfg      Config
	serials  *store.Serials
	m        *membership // nil for a node that stands alone
	started  time.Time
	plan     atomic.Pointer[plan]
	snapshot atomic.Pointer[zone.Snapshot]
	picture  atomic.Pointer[picture] // what the snapshot was made of, never nil
	changed  atomic.Int64            // when the snapshot was published; Unix nanoseconds
	opinions opinions
	dirty    chan struct{}          // something may have changed
	extend   chan []topology.Master // masters that joined, for the loader
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu          sync.Mutex
	states      map[identity]health.State
	unobserved  int
	subscribers map[int]func([]string)
	nextID      int

	// of the building goroutine alone, while it runs
	syncError    string
	problemsSaid []string
	prober       *probe.Prober
	joined       []topology.Master // as given to the loader
}

// plan is a plan with what is needed to look at its masters.
type plan struct {
	*zone.Plan
	targets []probe.Target // as Topology.Masters
	index   map[string]int // of Topology.Masters, by host
	joined  map[string]bool
}

func newPlan(p *zone.Plan, targets []probe.Target, joined []topology.Master) *plan {
	q := &plan{Plan: p, targets: targets, index: make(map[string]int), joined: make(map[string]bool)}
	for i, m := range p.Topology.Masters {
		q.index[m.Host] = i
	}
	for _, m := range joined {
		q.joined[m.Host] = true
	}
	return q
}

// newNode starts a runtime. Its first snapshot stands when it returns.
func newNode(cfg Config, serials *store.Serials, m *membership, seed map[identity]health.State) *Node {
	n := &Node{
		cfg:         cfg,
		serials:     serials,
		m:           m,
		started:     time.Now(),
		dirty:       make(chan struct{}, 1),
		extend:      make(chan []topology.Master, 1),
		states:      seed,
		subscribers: make(map[int]func([]string)),
	}
	var targets []probe.Target
	if cfg.Probe != nil {
		targets = cfg.Probe.Targets
	}
	first := newPlan(cfg.Plan, targets, nil)
	// Those that had joined before the last start are there from the beginning, so
	// that an answer does not lose them by a restart.
	if n.joined = n.announced(); len(n.joined) > 0 {
		l := cfg.Watch.load(n.joined)
		if l.err == nil {
			first = newPlan(l.plan, l.targets, l.joined)
		} else {
			cfg.Log.Errorf("Zone %s: masters that have joined cannot be served: %s", cfg.Name, l.err)
		}
	}
	n.plan.Store(first)
	n.countUnobserved()
	n.build()
	if cfg.Probe != nil {
		n.startProber()
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	loaded := make(chan loaded)
	if cfg.Watch != nil {
		go cfg.Watch.watch(ctx, n.joined, n.extend, loaded)
	}
	n.done.Go(func() { n.run(ctx, loaded) })
	return n
}

// startProber begins to look at the plan's masters.
func (n *Node) startProber() {
	p := n.cfg.Probe
	targets := n.plan.Load().targets
	ids := make(map[string]identity, len(targets))
	for _, t := range targets {
		ids[t.Subject] = identityOf(t)
	}
	n.prober = probe.Start(&p.Check, p.Schedule, targets, func(o health.Observation) bool {
		return n.observe(ids[o.Subject], o)
	})
}

// countUnobserved looks through the plan's masters.
func (n *Node) countUnobserved() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unobserved = 0
	for _, t := range n.plan.Load().targets {
		if s := n.states[identityOf(t)]; !s.Observed() {
			n.unobserved++
		}
	}
}

// stop ends every goroutine of the runtime. Its last snapshot stays.
func (n *Node) stop() {
	n.cancel()
	n.done.Wait()
	if n.prober != nil {
		n.prober.Stop()
	}
}

// Snapshot returns the current content. It is never nil.
func (n *Node) Snapshot() *zone.Snapshot { return n.snapshot.Load() }

// Subscribe has f called with the origins of the zones that changed, after they
// did, until the returned function is called. f must not block nor call the node.
func (n *Node) Subscribe(f func(origins []string)) (cancel func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.nextID
	n.nextID++
	n.subscribers[id] = f
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subscribers, id)
	}
}

// observe takes what the prober saw of a master.
func (n *Node) observe(id identity, o health.Observation) (doubted bool) {
	if h := n.cfg.Hooks.Probed; h != nil {
		h(o)
	}
	n.mu.Lock()
	before := n.states[id]
	after, changed := before.Next(o, n.cfg.Thresholds)
	n.states[id] = after
	if !before.Observed() {
		n.unobserved--
	}
	n.mu.Unlock()
	if changed || after.Certificate != before.Certificate || !before.Observed() && n.m != nil {
		n.kick()
	}
	if changed {
		n.logVerdict(before, after)
	}
	return after.Doubted()
}

// logVerdict writes the one line that a change is worth.
func (n *Node) logVerdict(before, after health.State) {
	v, host := after.Verdict, after.Last.Subject
	lasted := ""
	if since := before.Verdict.Since; !since.IsZero() && v.Down != before.Verdict.Down {
		lasted = " after " + v.Since.Sub(since).Round(time.Millisecond).String()
	}
	switch {
	case !v.Down:
		n.cfg.Log.Infof("Zone %s: master %s is up again%s", n.cfg.Name, host, lasted)
	case v.CertificateFails():
		n.cfg.Log.Errorf("Zone %s: master %s is down and left out, because agents would abort there: %s", n.cfg.Name, host, v.Detail)
	default:
		n.cfg.Log.Warningf("Zone %s: master %s is down%s: %s", n.cfg.Name, host, lasted, v.Detail)
	}
}

// kick has the building goroutine look; it does not block.
func (n *Node) kick() {
	select {
	case n.dirty <- struct{}{}:
	default:
	}
}

func (n *Node) run(ctx context.Context, files <-chan loaded) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dirty:
			n.adopt()
			n.build()
		case l := <-files:
			n.take(l)
		case <-tick.C:
			n.adopt()
			if p := n.look(); n.aged(p) {
				n.build()
			} else if n.m != nil {
				n.report(p) // of problems, which come and go without a verdict
			}
			if n.syncError != "" {
				n.reportSync(n.serials.Sync(patience))
			}
		}
	}
}

// aged reports whether time alone has changed something since the last build.
func (n *Node) aged(p *picture) bool {
	last := n.picture.Load()
	if p.plan != last.plan {
		return true
	}
	for i, m := range last.view.Masters {
		now := &p.view.Masters[i]
		if p.own[i].Known != last.own[i].Known || now.Drained != m.Drained || now.Verdict.Down != m.Verdict.Down || !slices.EqualFunc(now.Verdicts, m.Verdicts, sameVerdict) {
			return true
		}
	}
	return false
}

func sameVerdict(a, b health.Verdict) bool {
	return a.Down == b.Down && a.CertificateFails() == b.CertificateFails()
}

// build renders what is believed and publishes it if it differs. It is called
// by newNode, then by the building goroutine alone.
func (n *Node) build() {
	start := time.Now()
	p := n.look()
	p.content = p.plan.Render(p.view)
	before := n.picture.Swap(p)
	current := n.snapshot.Load()
	serials := make(map[string]uint32)
	var changed []string
	for _, origin := range p.plan.Origins() {
		hash := p.content.Hash(origin)
		serials[origin] = n.serials.Next(origin, hash, p.plan.FileSerial(origin), start, p.serials(origin)...)
		if current == nil || current.Zones[origin].Serial != serials[origin] || current.Zones[origin].Hash != hash {
			changed = append(changed, origin)
		}
	}
	if len(changed) > 0 {
		n.reportSync(n.serials.Sync(patience))
		n.snapshot.Store(p.content.Snapshot(serials))
		n.changed.Store(time.Now().UnixNano())
		if h := n.cfg.Hooks.Built; h != nil {
			h(time.Since(start))
		}
	}
	n.report(p)
	n.tellWrites(p)
	if before != nil {
		n.logAged(before, p)
		n.tell(before, p)
	}
	if current == nil || len(changed) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.subscribers {
		f(changed)
	}
}

// logAged says which verdicts have changed by time alone, because the own evidence
// is too old; the others are said when observed.
func (n *Node) logAged(before, after *picture) {
	for i, m := range after.plan.Topology.Masters {
		if j, ok := before.plan.index[m.Host]; ok && before.own[j].Verdict.Down && !after.own[i].Known {
			n.cfg.Log.Warningf("Zone %s: master %s counts as up: its evidence is too old", n.cfg.Name, m.Host)
		}
	}
}

// reportSync logs the state of the disk when it changes.
func (n *Node) reportSync(err error) {
	switch {
	case err == nil && n.syncError != "":
		n.cfg.Log.Infof("Zone %s: serials are durable again", n.cfg.Name)
		n.syncError = ""
	case err != nil && err.Error() != n.syncError:
		n.cfg.Log.Errorf("Zone %s: serials are not durable, answers go on: %s", n.cfg.Name, err)
		n.syncError = err.Error()
	}
}
