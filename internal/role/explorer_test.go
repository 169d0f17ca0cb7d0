package role_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// number is an environment variable's, or another one.
func number(t *testing.T, key string, otherwise uint64) uint64 {
	s := os.Getenv(key)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

// TestExplorer lives through random schedules of what operators write, of partitions,
// lost messages, old knowledge, hosts that are booted, members that are killed at any
// instruction, disks that refuse, and services that fail, hang, or are opened by
// somebody else. What must never be so is in promises_test.go, and is looked at after
// each thing that happens.
//
// A schedule is its seed: ROLE_SEED=N ROLE_SCHEDULES=1 repeats it, as far as the order of
// goroutines allows.
func TestExplorer(t *testing.T) {
	count := number(t, "ROLE_SCHEDULES", map[bool]uint64{false: 200, true: 50}[raced])
	seed := number(t, "ROLE_SEED", rand.Uint64N(1<<40))
	var all tally
	t.Run("schedules", func(t *testing.T) {
		for i := range count {
			t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { explore(t, seed+i, &all) })
				if t.Failed() {
					t.Fatalf("repeat: ROLE_SEED=%d ROLE_SCHEDULES=1 go test ./internal/role -run 'TestExplorer$'", seed+i)
				}
			})
			if t.Failed() {
				return
			}
		}
	})
	t.Logf("seeds %d to %d: %+v", seed, seed+count-1, all)
	if count >= 50 && !t.Failed() {
		all.demand(t)
	}
}

// tally is what a run has seen: a promise that was never at stake was not kept.
type tally struct {
	writes, handovers, opened, flips, reopened, closed, clean, kills, boots, rejoins, drifts, waited int
}

func (a *tally) demand(t *testing.T) {
	for what, n := range map[string]int{
		"writes": a.writes, "handovers": a.handovers, "openings": a.opened, "openings under another version": a.flips, "openings again": a.reopened,
		"closings": a.closed, "clean handovers": a.clean, "kills": a.kills, "boots": a.boots, "rejoins": a.rejoins,
		"services opened by others": a.drifts, "waits for a former camaster": a.waited,
	} {
		if n < 5 {
			t.Errorf("only %d %s: the schedules do not do what they are for", n, what)
		}
	}
}

// world is one schedule's.
type world struct {
	t     *testing.T
	tally *tally
	nodes []*node
	hosts []*host

	mu     sync.Mutex
	rng    *rand.Rand
	values map[register.Version]camaster.Value // all that were ever written
	cuts   map[[2]string]bool
	loss   float64
	faults bool
	late   sync.WaitGroup // knowledge that is under way
}

// node is one that holds the register. It never fails: cutting it off is the same.
type node struct {
	name   string
	state  register.State
	starts map[string]uint64 // of members, as it heard
}

// host is a master.
type host struct {
	*machine
	w     *world
	p     *process // nil while there is none
	power bool
	back  time.Time // when the host, or the member, is there again
	state register.State

	// The world's lock guards what follows.
	heard     map[string]bool // nodes, since the member's start
	delivered role.Knowledge  // the newest that the member was given since then
	known     bool            // something was
	now       *process        // p, for other goroutines
	all       bool            // it was told that all nodes were heard
	killIn    int             // instructions
	flaky     map[string]int  // by what: failures in a row
	diskBad   bool
	units     bool // services that depend on the member's decision were started
	byHand    map[string]bool
	under     map[string]register.Version // by service that is open
	most      register.Version            // it was ever opened under
	inBoot    map[register.Version]bool
	wrong     time.Time // since when it should be closed, and is not
}

func explore(t *testing.T, seed uint64, all *tally) {
	w := &world{t: t, tally: all, rng: rand.New(rand.NewPCG(seed, 7)), values: make(map[register.Version]camaster.Value), cuts: make(map[[2]string]bool), faults: true}
	for i := range 1 + w.pick(3) {
		w.nodes = append(w.nodes, &node{name: fmt.Sprintf("ns%d.example.net", i+1), starts: make(map[string]uint64)})
	}
	for i := range 3 + w.pick(3) {
		h := &host{machine: newMachine(t, fmt.Sprintf("m%d.example.net.", i+1)), w: w}
		h.strict = false
		h.said = func(line string) {
			if strings.Contains(line, "everything is closed, cleanly") {
				w.mu.Lock()
				defer w.mu.Unlock()
				all.clean++
			}
		}
		h.point, h.opens, h.pace, h.diskf = h.atPoint, h.atOpen, h.atPace, h.atDisk
		h.boot()
		w.hosts = append(w.hosts, h)
	}
	for range 20 + w.pick(60) {
		if t.Failed() {
			break
		}
		w.happen()
		ticks := w.pick(40)
		if w.chance(40) {
			ticks = 1500 // so that nothing is left undone for want of time
		}
		for i := 0; i < ticks && !t.Failed(); i++ {
			w.tick(50 * time.Millisecond)
		}
	}
	w.settle()
	for _, h := range w.hosts {
		if h.p != nil {
			h.p.stop()
		}
	}
	w.late.Wait()
}

// chance is true once in n.
func (w *world) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n) == 0
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *world) say(format string, v ...any) {
	w.t.Logf(time.Now().Format("15:04:05.000")+" -- "+format, v...)
}

// happen does one thing to the world.
func (w *world) happen() {
	h := w.hosts[w.pick(len(w.hosts))]
	switch w.pick(14) {
	case 0, 1, 2:
		w.write(w.nodes[w.pick(len(w.nodes))])
	case 3:
		w.cut(h.host, w.nodes[w.pick(len(w.nodes))].name)
	case 4:
		w.say("%s is cut off", h.host)
		for _, n := range w.nodes {
			w.cut(h.host, n.name)
		}
		for _, o := range w.hosts {
			w.cut(h.host, o.host)
		}
	case 5:
		if n := w.nodes[w.pick(len(w.nodes))]; true {
			w.say("%s is cut off", n.name)
			for _, o := range w.nodes {
				w.cut(n.name, o.name)
			}
			for _, o := range w.hosts {
				w.cut(n.name, o.host)
			}
		}
	case 6:
		w.say("the partitions end")
		w.mu.Lock()
		clear(w.cuts)
		w.loss = []float64{0, 0, 0.3, 0.9}[w.rng.IntN(4)]
		w.mu.Unlock()
	case 7:
		h.down(true)
	case 8:
		h.down(false)
	case 9, 10:
		w.mu.Lock()
		h.killIn = 1 + w.rng.IntN(40)
		w.mu.Unlock()
	case 11:
		if h.p != nil {
			w.say("%s is to rejoin", h.host)
			_ = h.p.ctl.Rejoin(fmt.Sprintf("r%d", w.pick(1<<30)))
		}
	case 12:
		w.mu.Lock()
		h.diskBad = !h.diskBad
		w.mu.Unlock()
	case 13:
		if w.chance(3) {
			h.byOthers()
		}
	}
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (w *world) cut(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[pair(a, b)] = a != b
}

// talk reports whether a message between two comes through now.
func (w *world) talk(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cuts[pair(a, b)] && w.rng.Float64() >= w.loss
}

// write is an operator's: a plain set, a handover, the end of one, or a failover.
func (w *world) write(n *node) {
	now, at, _ := camaster.Of(n.state)
	next := w.hosts[w.pick(len(w.hosts))].host
	v := camaster.Value{Host: next, From: now.Host}
	forced := false
	switch k := w.pick(4); {
	case k == 0 && now.Host != "" && next != now.Host:
		v = camaster.Value{Host: now.Host, From: now.Host, Handover: next}
		w.tally.handovers++
	case k == 1 && now.Handover != "":
		v.Host = now.Handover
	case k == 2:
		forced = true
	}
	if w.pick(4) > 0 {
		v.Boot = n.starts[v.Host]
	}
	version, err := at.Next(n.name, forced)
	if err != nil {
		w.t.Fatal(err)
	}
	value, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	payload, err := register.Encode(register.Entry{Key: camaster.Key, Value: value, Version: version, Parent: at, Time: time.Now(), Actor: "ops", Reason: "drill", Forced: forced})
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := register.Decode(payload, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	n.state = merge(w.t, n.state, e)
	w.mu.Lock()
	w.values[version] = v
	w.mu.Unlock()
	w.tally.writes++
	w.say("written on %s: %s %+v", n.name, version, v)
}

func merge(t *testing.T, s register.State, es ...register.Entry) register.State {
	m, _, err := s.Merge(es...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// exchange makes two states equal.
func exchange(t *testing.T, a, b *register.State) {
	for e := range a.All() {
		*b = merge(t, *b, e)
	}
	for e := range b.All() {
		*a = merge(t, *a, e)
	}
}

// tick lets time go by, and those talk who can.
func (w *world) tick(d time.Duration) {
	time.Sleep(d)
	for i, n := range w.nodes {
		for _, o := range w.nodes[i+1:] {
			if w.talk(n.name, o.name) {
				exchange(w.t, &n.state, &o.state)
			}
		}
	}
	for i, h := range w.hosts {
		h.tend()
		if h.p == nil {
			continue
		}
		for _, n := range w.nodes {
			if w.talk(h.host, n.name) {
				exchange(w.t, &h.state, &n.state)
				n.starts[h.host] = h.p.start
				w.mu.Lock()
				h.heard[n.name] = true
				w.mu.Unlock()
			}
		}
		for _, o := range w.hosts[i+1:] {
			if o.p != nil && w.talk(h.host, o.host) {
				exchange(w.t, &h.state, &o.state)
			}
		}
		h.know()
	}
	w.look()
}

// tend brings up what is to come up again.
func (h *host) tend() {
	if h.p != nil && h.p.isDead() {
		<-h.p.done
		h.p, h.back = nil, time.Now().Add(time.Duration(h.w.pick(5000))*time.Millisecond)
		h.w.tally.kills++
		h.w.say("the member of %s was killed", h.host)
	}
	if h.p == nil && !time.Now().Before(h.back) {
		if !h.power {
			h.boot()
			return
		}
		h.begin()
	}
}

// down ends the member, or the host.
func (h *host) down(host bool) {
	if !h.power {
		return
	}
	if h.p != nil {
		h.p.stop()
		h.p = nil
	}
	h.back = time.Now().Add(time.Duration(h.w.pick(20000)) * time.Millisecond)
	if !host {
		h.w.tally.kills++
		h.w.say("the member of %s ends", h.host)
		return
	}
	h.w.tally.boots++
	h.w.say("%s goes down", h.host)
	h.w.mu.Lock()
	h.power = false
	h.units, h.wrong = false, time.Time{}
	h.w.mu.Unlock()
}

// boot brings the host up.
func (h *host) boot() {
	if h.under != nil {
		h.reboot()
	}
	h.w.mu.Lock()
	h.power = true
	h.inBoot = make(map[register.Version]bool)
	if h.under == nil { // the member is installed on a host that runs
		h.under, h.byHand, h.units = make(map[string]register.Version), make(map[string]bool), true
	}
	h.w.mu.Unlock()
	h.begin()
}

// begin starts a member.
func (h *host) begin() {
	if h.w.chance(4) {
		h.w.say("%s has lost its register", h.host)
		h.state = register.State{}
	}
	h.w.mu.Lock()
	h.heard, h.delivered, h.known = make(map[string]bool), role.Knowledge{}, false
	h.all = false
	h.killIn, h.flaky = 0, make(map[string]int)
	h.w.mu.Unlock()
	h.p = h.run(func(p *process, cfg *role.Config) {
		cfg.Clear = h.clear
		h.w.mu.Lock()
		h.now = p
		h.w.mu.Unlock()
	})
	h.w.say("member %d of %s starts in boot %d", h.p.start, h.host, h.boots)
}

// clear asks a former camaster, if it can be reached.
func (h *host) clear(ctx context.Context, old string) (string, error) {
	for _, o := range h.w.hosts {
		h.w.mu.Lock()
		up := o.power
		h.w.mu.Unlock()
		if o.host == old && up && h.w.talk(h.host, old) {
			if o.anyOpen() {
				h.w.mu.Lock()
				h.w.tally.waited++
				h.w.mu.Unlock()
				return "it is open", nil
			}
			return "", nil
		}
	}
	return "", errors.New("no route to host")
}

// know gives the member what is known, now or a while later.
func (h *host) know() {
	var waits []string
	for _, n := range h.w.nodes {
		if !h.heard[n.name] {
			waits = append(waits, n.name)
		}
	}
	p, k := h.p, role.Know(h.state, waits, h.p.start)
	deliver := func() {
		h.w.mu.Lock()
		if h.now == p {
			h.all = h.all || k.Heard
		}
		h.w.mu.Unlock()
		// Nothing opens between its being told and our knowing that.
		h.machine.mu.Lock()
		defer h.machine.mu.Unlock()
		p.ctl.Know(k)
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		if h.now == p && (!h.known || k.Version.Compare(h.delivered.Version) >= 0) {
			h.delivered, h.known = k, true
		}
	}
	if h.w.chance(20) {
		d := time.Duration(h.w.pick(3000)) * time.Millisecond
		h.w.late.Go(func() {
			time.Sleep(d)
			deliver()
		})
		return
	}
	if !h.w.chance(3) {
		deliver()
	}
}

// byOthers opens a service behind the member's back.
func (h *host) byOthers() {
	h.machine.mu.Lock()
	s := h.service("ca")
	open := s.state == role.Open
	if !open {
		s.state = role.Open
		h.w.mu.Lock()
		h.byHand[s.name] = true
		h.w.mu.Unlock()
	}
	h.machine.mu.Unlock()
	if !open {
		h.w.tally.drifts++
		h.w.say("somebody opens the ca of %s", h.host)
	}
}

// atPoint kills the member where it is due.
func (h *host) atPoint(p *process, what string) {
	h.w.mu.Lock()
	h.killIn--
	now := h.killIn == 0
	h.w.mu.Unlock()
	if now {
		h.w.say("%s is killed %s", h.host, what)
		p.kill()
	}
}

// atPace says how a step or a look fares: at most twice in a row badly.
func (h *host) atPace(_ *process, what string) (time.Duration, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if !h.w.faults {
		return time.Millisecond, nil
	}
	d := time.Duration(h.w.rng.IntN(30)) * time.Millisecond
	if h.w.rng.IntN(20) > 0 || h.flaky[what] >= 2 {
		h.flaky[what] = 0
		return d, nil
	}
	h.flaky[what]++
	switch h.w.rng.IntN(3) {
	case 0:
		return time.Minute, nil
	case 1:
		return time.Duration(h.w.rng.IntN(6000)) * time.Millisecond, nil
	}
	return d, errors.New("it does not go")
}

func (h *host) atDisk(string) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.diskBad && h.w.faults {
		return errors.New("no space left on device")
	}
	return nil
}

// settle lets everything work again, and waits until nothing changes any more.
func (w *world) settle() {
	w.say("everything works again")
	if len(w.values) == 0 { // in one schedule of some two thousand, and an end needs a camaster
		w.write(w.nodes[0])
	}
	w.mu.Lock()
	clear(w.cuts)
	w.loss, w.faults = 0, false
	w.mu.Unlock()
	for _, h := range w.hosts {
		h.back = time.Now()
		w.mu.Lock()
		h.killIn = 0
		w.mu.Unlock()
	}
	w.reach("the end", func(h *host, r evidence.Role) string { return w.ends(h, r, true) })
	v, _, _ := camaster.Of(w.nodes[0].state)
	for i, h := range w.hosts {
		if h.p != nil && v.Host != h.host {
			if err := h.p.ctl.Rejoin(fmt.Sprintf("last%d", i)); err != nil {
				w.t.Error(err)
			}
		}
	}
	w.tick(0)
	w.reach("rejoining", func(h *host, r evidence.Role) string { return w.ends(h, r, v.Host == "") })
	// And once more from the start, everybody at once.
	for _, h := range w.hosts {
		h.down(true)
		h.back = time.Now()
	}
	w.reach("the boot", func(h *host, r evidence.Role) string { return w.ends(h, r, v.Host == "" || v.Handover != "") })
}

// reach waits until nothing is wrong with any host.
func (w *world) reach(what string, wrong func(h *host, r evidence.Role) string) {
	var all []string
	for range 3 * 60 * 20 {
		if w.t.Failed() {
			return
		}
		w.tick(50 * time.Millisecond)
		all = nil
		for _, h := range w.hosts {
			if h.p == nil {
				all = append(all, h.host+" has no member")
			} else if s := wrong(h, h.p.ctl.Status()); s != "" {
				all = append(all, fmt.Sprintf("%s: %s: %s, %+v", h.host, s, h.states(), h.p.ctl.Status()))
			}
		}
		if len(all) == 0 {
			return
		}
	}
	w.t.Errorf("three minutes after %s: %v", what, all)
}
