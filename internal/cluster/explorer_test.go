package cluster_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

var (
	exploreSeed  = flag.Uint64("seed", 0, "of the explorer's first schedule; 0: another one each time")
	exploreCount = flag.Int("schedules", 0, "how many schedules the explorer goes through; 0: as many as are good for CI")
)

// settleWithin is how long, in simulated time, a cluster may take to agree after
// everything works again: somebody must dial again (2 s), be believed to be alive,
// and exchange the state (10 s).
const settleWithin = time.Minute

// TestExplorer lives through random schedules of writes, lost, late and doubled
// messages, partitions, crashes, restarts with the disk, with an empty one and with
// an old one, and failing disks. After each the cluster must have kept its promises;
// they are in promises_test.go.
//
// A schedule is its seed: -run TestExplorer -seed N -schedules 1 repeats it, as far
// as the order of goroutines allows. Not covered: clocks that differ, because a
// bubble has one clock (a boot from the future stands for a clock that was ahead).
func TestExplorer(t *testing.T) {
	count, seed := *exploreCount, *exploreSeed
	if count == 0 {
		if count = 50; raced {
			count = 6
		}
	}
	if seed == 0 {
		seed = rand.Uint64N(1 << 40)
	}
	var all tally
	t.Run("schedules", func(t *testing.T) {
		for i := range uint64(count) {
			t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { all.add(explore(t, seed+i)) })
				if t.Failed() {
					t.Logf("repeat: go test ./internal/cluster -run 'TestExplorer$' -seed %d -schedules 1", seed+i)
				}
			})
		}
	})
	t.Logf("seeds %d to %d: %v", seed, seed+uint64(count)-1, &all)
	if count >= 50 && !t.Failed() {
		all.demand(t)
	}
}

// explorer drives one cluster through one schedule.
type explorer struct {
	*site
	promises *promises
	rng      *rand.Rand
	all      []*machine
	ops      sync.WaitGroup // writes under way
	calm     bool           // no process ends
	killed   chan *machine  // in the middle of a write
	counts   tally
}

// machine is a node's host: what stays while processes come and go.
type machine struct {
	name   string
	drive  *drive
	life   int // counts processes
	up     bool
	backup *backup
}

// backup is an older copy of a drive, with what was certainly on it.
type backup struct {
	files map[string][]byte
	held  durable
}

func explore(t *testing.T, seed uint64) *tally {
	rng := rand.New(rand.NewPCG(seed, 1))
	e := &explorer{site: newSite(t, newPKI(t), seed), rng: rng, promises: newPromises(t), killed: make(chan *machine, 1000)}
	e.site.log = quietLog{}
	defer e.stop()
	e.calm = rng.IntN(5) == 0
	n := 3 + rng.IntN(5)
	steps := 15 + rng.IntN(45)
	switch rng.IntN(50) {
	case 0:
		n, steps = 8+rng.IntN(13), 20
	case 1:
		n, steps = 21+rng.IntN(30), 8
	}
	for i := range n {
		m := &machine{name: nodeName(i + 1), drive: newDrive(rand.New(rand.NewPCG(seed, uint64(i+2))))}
		e.all = append(e.all, m)
		e.boot(m)
	}
	e.pause(10 * time.Second)
	for range steps {
		if t.Failed() {
			return &e.counts
		}
		e.step()
		e.promises.look()
	}
	e.settle()
	e.counts.acked = len(e.promises.writes)
	return &e.counts
}

func (e *explorer) say(format string, v ...any) {
	e.t.Helper()
	e.t.Logf("%8.2fs "+format, append([]any{time.Since(e.promises.begun).Seconds()}, v...)...)
}

// pause lets up to most go by, and often much less.
func (e *explorer) pause(most time.Duration) {
	d := time.Duration(float64(most) * e.rng.Float64() * e.rng.Float64())
	for end := time.After(d); ; {
		select {
		case <-end:
			return
		case m := <-e.killed:
			if m.up && m.drive.isDead() {
				e.say("in the middle of a write")
				e.crashOne(m)
				e.counts.torn++
			}
		}
	}
}

func (e *explorer) pick(ms []*machine) *machine { return ms[e.rng.IntN(len(ms))] }

func (e *explorer) where(up bool) []*machine {
	return slices.DeleteFunc(slices.Clone(e.all), func(m *machine) bool { return m.up != up })
}

func (e *explorer) step() {
	up, down := e.where(true), e.where(false)
	k := e.rng.IntN(100)
	if e.calm && k >= 58 && k < 84 {
		k = e.rng.IntN(58)
	}
	switch {
	case k < 35:
		for range 1 + e.rng.IntN(3)*e.rng.IntN(2) {
			if len(up) > 0 {
				e.submit(e.pick(up))
			}
		}
	case k < 43:
		e.partition()
	case k < 49:
		e.say("heal")
		e.network.Heal()
	case k < 55:
		f := gossiptest.Faults{Loss: 0.3 * e.rng.Float64(), Duplicate: 0.3 * e.rng.Float64(), MaxDelay: time.Duration(e.rng.IntN(600)) * time.Millisecond}
		e.say("network: %+v", f)
		e.network.SetFaults(f)
		e.counts.faults++
	case k < 58:
		e.say("network: no faults")
		e.network.SetFaults(gossiptest.Faults{})
	case k < 66:
		if len(up) > 1 {
			e.crashOne(e.pick(up))
		}
	case k < 68:
		if len(up) > 1 {
			e.leave(e.pick(up))
		}
	case k < 78:
		if len(down) > 0 {
			e.restart(e.pick(down))
		}
	case k < 82:
		if len(up) > 0 {
			m := e.pick(up)
			e.crashOne(m)
			e.restart(m)
		}
	case k < 84:
		e.say("all crash, and start again")
		for _, m := range up {
			e.crashOne(m)
		}
		for _, m := range e.all {
			e.boot(m)
		}
	case k < 88:
		e.say("backup of all")
		for _, m := range e.all {
			m.backup = e.copyOf(m)
		}
	case k < 96:
		m := e.pick(e.all)
		f := fault(e.rng.IntN(4))
		if e.calm && f == torn {
			f = full
		}
		e.say("disk of %s: %v", m.name, f)
		m.drive.set(f)
		if f != whole {
			e.counts.disks++
		}
	default:
		e.pause(2 * time.Minute)
	}
	e.pause(10 * time.Second)
}

// submit has a random write begun, and mostly does not wait for it.
func (e *explorer) submit(m *machine) {
	c := e.nodes[m.name]
	key := "camaster"
	if e.rng.IntN(2) == 0 {
		key = fmt.Sprintf("%sm%d.example.net.", register.DrainPrefix, 1+e.rng.IntN(3))
	}
	e.counts.writes++
	ch := cluster.Change{
		Key: key, Value: json.RawMessage(fmt.Sprintf(`{"write":%d}`, e.counts.writes)),
		Actor: "explorer", Reason: "drill", Forced: e.rng.IntN(12) == 0,
	}
	if e.rng.IntN(2) == 0 {
		v := c.Registers().Version(key)
		if e.rng.IntN(8) == 0 {
			v.Counter += 2 // what nobody has yet
		}
		ch.Expect = &v
	}
	wait := cluster.Wait(e.rng.IntN(3))
	e.say("%s writes %s, number %d, expecting %v, forced %v, waiting for %d", m.name, key, e.counts.writes, ch.Expect, ch.Forced, wait)
	w := e.promises.beginWrite(m, ch)
	done := make(chan struct{})
	e.ops.Go(func() {
		defer close(done)
		r, err := c.Write(e.t.Context(), ch, wait)
		e.promises.endWrite(w, r, err, wait, c.Registers())
	})
	if e.rng.IntN(4) == 0 {
		<-done
	}
}

// partition splits the network in two, sometimes three.
func (e *explorer) partition() {
	parts := 2 + e.rng.IntN(5)/4
	groups := make([][]netip.AddrPort, parts)
	names := make([][]string, parts)
	for _, m := range e.all {
		i := e.rng.IntN(parts)
		groups[i] = append(groups[i], e.addrs[m.name])
		names[i] = append(names[i], strings.TrimSuffix(m.name, ".example.net"))
	}
	e.say("partition %v", names)
	e.network.Partition(groups...)
	e.counts.partitions++
}

func (e *explorer) boot(m *machine) {
	m.life++
	m.up = true
	cfg := e.config(m.name)
	cfg.Disk = m.drive.begin(func() { e.killed <- m })
	look := e.promises.watch(m)
	cfg.Changed = look
	conflict := cfg.Conflict
	cfg.Conflict = func(w register.Entry, unknown []register.Entry) {
		conflict(w, unknown)
		e.promises.told(m, w, unknown)
	}
	c, err := cluster.Start(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.nodes[m.name] = c
	e.promises.started(m, c)
	c.Publish(cluster.Report{Release: release(m)})
}

// release is how the reports of a machine's latest process are known.
func release(m *machine) string { return fmt.Sprintf("%s life %d", m.name, m.life) }

// crashOne ends a process as a power cut does: nothing gets to its disk any more.
func (e *explorer) crashOne(m *machine) {
	e.say("%s crashes", m.name)
	e.counts.crashes++
	e.promises.ended(m)
	m.drive.die()
	e.crash(m.name)
	m.up = false
}

func (e *explorer) leave(m *machine) {
	e.say("%s leaves", m.name)
	e.counts.leaves++
	m.drive.set(whole)
	e.promises.ended(m)
	e.nodes[m.name].Leave(2 * time.Second)
	delete(e.nodes, m.name)
	m.up = false
}

// restart starts a process on the disk as it is, or an empty, or an older one.
func (e *explorer) restart(m *machine) {
	switch k := e.rng.IntN(10); {
	case k < 3:
		e.say("%s starts with an empty disk", m.name)
		m.drive.replace(nil)
		e.promises.swapped(m, nil)
		e.counts.empty++
	case k < 6 && m.backup != nil:
		e.say("%s starts with its backup", m.name)
		m.drive.replace(m.backup.files)
		e.promises.swapped(m, m.backup.held)
		e.counts.old++
		if e.rng.IntN(2) == 0 { // it writes before it has learned, perhaps a version of before
			defer e.submit(m)
		}
	default:
		e.say("%s starts again", m.name)
	}
	if e.rng.IntN(10) == 0 {
		e.say("its clock was ahead")
		m.drive.advance(time.Duration(e.rng.IntN(5*365*24)) * time.Hour)
	}
	e.boot(m)
}

func (e *explorer) copyOf(m *machine) *backup {
	held := e.promises.holds(m) // before the files: they may get more
	return &backup{m.drive.copy(), held}
}

// settle makes everything work again and holds the cluster to its promises.
func (e *explorer) settle() {
	e.say("everything works again")
	e.network.SetFaults(gossiptest.Faults{})
	e.network.Heal()
	for _, m := range e.all {
		m.drive.set(whole)
	}
	for _, m := range e.where(false) {
		e.boot(m)
	}
	begin := time.Now()
	for !e.agreed() || !e.heard(e.all) {
		if time.Since(begin) > settleWithin {
			e.t.Errorf("not agreed within %v:\n%s", settleWithin, e.describe())
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	e.ops.Wait()
	for !e.agreed() { // a write may have been held up by its disk
		if time.Since(begin) > 2*settleWithin {
			e.t.Errorf("not agreed within %v:\n%s", 2*settleWithin, e.describe())
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	synctest.Wait() // who has it is told of it
	e.counts.settled(time.Since(begin))
	e.promises.look()
	final := e.nodes[e.all[0].name].Registers()
	e.promises.check(final)
	e.counts.conflicts += e.promises.conflicts(final)
	// Each alone with its disk: what all agree on is durable everywhere.
	time.Sleep(3 * time.Second)
	var alone [][]netip.AddrPort
	for _, m := range e.all {
		if _, err := e.nodes[m.name].Problem(); err != nil {
			e.t.Errorf("%s has a good disk and a problem: %v", m.name, err)
		}
		e.crashOne(m)
		alone = append(alone, []netip.AddrPort{e.addrs[m.name]})
	}
	e.network.Partition(alone...)
	for _, m := range e.all {
		e.boot(m)
		if got := e.nodes[m.name].Registers(); content(got) != content(final) {
			e.t.Errorf("%s alone with its disk has\n%swhere all agreed on\n%s", m.name, content(got), content(final))
		}
	}
}

// agreed reports whether all nodes hold the same, byte for byte.
func (e *explorer) agreed() bool {
	want := content(e.nodes[e.all[0].name].Registers())
	for _, m := range e.all[1:] {
		if content(e.nodes[m.name].Registers()) != want {
			return false
		}
	}
	return true
}

// heard reports whether everybody has the newest report of everybody.
func (e *explorer) heard(ms []*machine) bool {
	for _, m := range ms {
		fresh := 0
		for _, p := range e.nodes[m.name].Peers() {
			i := slices.IndexFunc(e.all, func(o *machine) bool { return o.name == p.Name })
			if i >= 0 && p.Fresh && p.Report.Release == release(e.all[i]) {
				fresh++
			}
		}
		if fresh != len(e.all) {
			return false
		}
	}
	return true
}

// describe says what nodes do not agree on.
func (e *explorer) describe() string {
	var b strings.Builder
	agreed := e.agreed()
	for _, m := range e.all {
		c := e.nodes[m.name]
		fmt.Fprintf(&b, "%s, %s:\n", m.name, release(m))
		if !agreed {
			b.WriteString(content(c.Registers()))
		}
		for _, p := range c.Peers() {
			said := "nothing"
			if p.Report != nil {
				said = fmt.Sprintf("%q, boot %d number %d", p.Report.Release, p.Report.Boot, p.Report.Seq)
			}
			fmt.Fprintf(&b, "  sees %s %v fresh %v: %s\n", p.Name, p.Status, p.Fresh, said)
		}
	}
	return b.String()
}

// stop ends everything, whatever state it is in.
func (e *explorer) stop() {
	for _, m := range e.all {
		m.drive.set(whole)
	}
	e.end()
	e.ops.Wait()
}

func (d *drive) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mount != nil && d.mount.dead
}

// advance makes the boot that is remembered one of a clock that was ahead.
func (d *drive) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var known map[string]any
	if json.Unmarshal(d.files["cluster.json"], &known) != nil {
		return
	}
	known["boot"] = uint64(time.Now().Add(by).UnixMicro())
	if data, err := json.Marshal(known); err == nil {
		d.files["cluster.json"] = data
	}
}

// tally is what schedules have been through.
type tally struct {
	mu                                                                                                sync.Mutex
	schedules, writes, acked, partitions, faults, crashes, torn, leaves, empty, old, disks, conflicts int
	slowest                                                                                           time.Duration
}

func (a *tally) add(b *tally) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.schedules++
	a.writes += b.writes
	a.acked += b.acked
	a.partitions += b.partitions
	a.faults += b.faults
	a.crashes += b.crashes
	a.torn += b.torn
	a.leaves += b.leaves
	a.empty += b.empty
	a.old += b.old
	a.disks += b.disks
	a.conflicts += b.conflicts
	a.slowest = max(a.slowest, b.slowest)
}

func (a *tally) settled(d time.Duration) { a.slowest = max(a.slowest, d) }

func (a *tally) String() string {
	return fmt.Sprintf("%d schedules, %d writes of which %d acknowledged, %d conflicts, %d partitions, %d network faults, %d crashes (%d in the middle of a write), %d leaves, %d empty and %d old disks, %d disk faults; agreed within %v",
		a.schedules, a.writes, a.acked, a.conflicts, a.partitions, a.faults, a.crashes, a.torn, a.leaves, a.empty, a.old, a.disks, a.slowest)
}

// demand fails where the schedules were too tame to show anything.
func (a *tally) demand(t *testing.T) {
	for what, n := range map[string]int{"acknowledged writes": a.acked, "conflicts": a.conflicts, "partitions": a.partitions, "crashes": a.crashes, "crashes in the middle of a write": a.torn, "leaves": a.leaves, "empty disks": a.empty, "old disks": a.old, "disk faults": a.disks} {
		if n < a.schedules/10 {
			t.Errorf("%d %s in %d schedules", n, what, a.schedules)
		}
	}
}

// quietLog drops what is said: schedules are full of what a log warns of.
type quietLog struct{}

func (quietLog) Debugf(string, ...any)   {}
func (quietLog) Infof(string, ...any)    {}
func (quietLog) Warningf(string, ...any) {}
func (quietLog) Errorf(string, ...any)   {}

var _ gossip.Logger = quietLog{}
