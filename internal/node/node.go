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
	"sync"
	"sync/atomic"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
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
	// Watch is nil where there is no file to watch.
	Watch *Watch

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
	plan     atomic.Pointer[zone.Plan] // of one topology for good
	snapshot atomic.Pointer[zone.Snapshot]
	dirty    chan struct{} // a verdict may have changed
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu          sync.Mutex
	states      []health.State // as Topology.Masters
	unobserved  int
	subscribers map[int]func([]string)
	nextID      int

	// of the building goroutine alone, while it runs
	rendered  []health.Verdict
	syncError string
	prober    *probe.Prober
	targets   []probe.Target
}

// newNode starts a runtime. Its first snapshot stands when it returns.
func newNode(cfg Config, serials *store.Serials, seed map[identity]health.State) *Node {
	n := &Node{
		cfg:         cfg,
		serials:     serials,
		dirty:       make(chan struct{}, 1),
		states:      make([]health.State, len(cfg.Plan.Topology.Masters)),
		subscribers: make(map[int]func([]string)),
	}
	if cfg.Probe != nil {
		for i, t := range cfg.Probe.Targets {
			if n.states[i] = seed[identityOf(t)]; !n.states[i].Observed() {
				n.unobserved++
			}
		}
	}
	n.plan.Store(cfg.Plan)
	n.build()
	if cfg.Probe != nil {
		n.startProber(cfg.Probe.Targets)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	files := make(chan loaded)
	if cfg.Watch != nil {
		go cfg.Watch.watch(ctx, files)
	}
	n.done.Go(func() { n.run(ctx, files) })
	return n
}

// startProber begins to look at targets, which are as Topology.Masters.
func (n *Node) startProber(targets []probe.Target) {
	index := make(map[string]int, len(targets))
	for i, t := range targets {
		index[t.Subject] = i
	}
	p := n.cfg.Probe
	n.targets = targets
	n.prober = probe.Start(&p.Check, p.Schedule, targets, func(o health.Observation) bool {
		return n.observe(index[o.Subject], o)
	})
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

// observe takes what the prober saw of master i.
func (n *Node) observe(i int, o health.Observation) (doubted bool) {
	if h := n.cfg.Hooks.Probed; h != nil {
		h(o)
	}
	n.mu.Lock()
	before := n.states[i]
	after, changed := before.Next(o, n.cfg.Thresholds)
	n.states[i] = after
	if !before.Observed() {
		n.unobserved--
	}
	n.mu.Unlock()
	if changed || after.Certificate != before.Certificate {
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
			n.build()
		case l := <-files:
			n.take(l)
		case <-tick.C:
			if n.aged() {
				n.build()
			}
			if n.syncError != "" {
				n.reportSync(n.serials.Sync(patience))
			}
		}
	}
}

// view is what is believed now.
func (n *Node) view() zone.View {
	now := time.Now()
	v := n.plan.Load().NewView(now)
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, s := range n.states {
		v.Masters[i] = zone.MasterView{Verdict: n.verdictAt(s, now), Certificate: s.Certificate}
	}
	return v
}

func (n *Node) verdictAt(s health.State, now time.Time) health.Verdict {
	if n.cfg.Probe == nil {
		return health.Verdict{}
	}
	return s.At(now, n.cfg.Probe.maxAge())
}

// aged reports whether time alone has changed a verdict since the last build.
func (n *Node) aged() bool {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, s := range n.states {
		if n.verdictAt(s, now).Down != n.rendered[i].Down {
			return true
		}
	}
	return false
}

// build renders what is believed and publishes it if it differs. It is called
// by newNode, then by the building goroutine alone.
func (n *Node) build() {
	start := time.Now()
	v := n.view()
	n.remember(v)
	plan := n.plan.Load()
	content := plan.Render(v)
	current := n.snapshot.Load()
	serials := make(map[string]uint32)
	var changed []string
	for _, origin := range plan.Origins() {
		// Another runtime may have given out a serial for its content of this zone,
		// during a reload: then ours has to be newer again.
		if hash := content.Hash(origin); current == nil || n.serials.Current(origin) != (store.Serial{Serial: current.Zones[origin].Serial, Hash: hash}) {
			changed = append(changed, origin)
			serials[origin] = n.serials.Next(origin, content.Hash(origin), plan.FileSerial(origin), start)
		} else {
			serials[origin] = current.Zones[origin].Serial
		}
	}
	if len(changed) == 0 {
		return
	}
	n.reportSync(n.serials.Sync(patience))
	n.snapshot.Store(content.Snapshot(serials))
	if h := n.cfg.Hooks.Built; h != nil {
		h(time.Since(start))
	}
	if current == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.subscribers {
		f(changed)
	}
}

// remember keeps the verdicts that are rendered. One that changes by time alone,
// because its evidence is too old, is said here; the others when observed.
func (n *Node) remember(v zone.View) {
	for i, m := range v.Masters {
		if i < len(n.rendered) && n.rendered[i].Down && !m.Verdict.Down && m.Verdict.Since.IsZero() {
			n.cfg.Log.Warningf("Zone %s: master %s counts as up: its evidence is too old", n.cfg.Name, n.plan.Load().Topology.Masters[i].Host)
		}
	}
	n.rendered = n.rendered[:0]
	for _, m := range v.Masters {
		n.rendered = append(n.rendered, m.Verdict)
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
