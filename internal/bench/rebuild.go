package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// maxResident bounds the memory of a node with 1000 masters.
const maxResident = 200 << 20

// rebuildSizes are the layouts; limit is from a verdict to its answer, 0 where
// there is no target.
var rebuildSizes = []struct {
	masters, datacenters, changes int
	limit                         time.Duration
}{
	{4, 2, 1000, 0},
	{100, 10, 200, 5 * time.Millisecond},
	{1000, 50, 30, 250 * time.Millisecond},
}

// rebuild measures what a verdict costs until it is answered, and the memory.
func (b *bench) rebuild() error {
	b.report.title("from a changed verdict to the snapshot that answers it")
	for _, size := range rebuildSizes {
		took, err := b.render(size.masters, size.datacenters, size.changes)
		if err != nil {
			return err
		}
		label := fmt.Sprintf("%d masters in %d datacenters, in process (%d times)", size.masters, size.datacenters, size.changes)
		b.report.row(label, took.String(), "", limitCell("p99", size.limit), size.limit > 0, quantile(took, 0.99) <= size.limit)
	}
	for _, size := range rebuildSizes[1:] {
		if err := b.process(size.masters, size.datacenters, size.limit); err != nil {
			return err
		}
	}
	return nil
}

func limitCell(what string, limit time.Duration) string {
	if limit == 0 {
		return ""
	}
	return what + " <= " + limit.String()
}

// render flips verdicts at random and makes the snapshots, as package node does.
func (b *bench) render(masters, datacenters, changes int) (times, error) {
	plan, err := b.plan(masters, datacenters)
	if err != nil {
		return nil, err
	}
	view := plan.NewView(time.Now())
	var took times
	for serial := range uint32(changes) {
		v := &view.Masters[rand.N(masters)].Verdict
		v.Down, v.Reason = !v.Down, health.ReasonRefused
		start := time.Now()
		snapshot := plan.Render(view).Snapshot(map[string]uint32{zoneName + ".": serial + 1})
		took = append(took, time.Since(start))
		if snapshot.Answer("_x-puppet._tcp.datacenter1."+zoneName+".", dns.TypeSRV) == nil {
			return nil, fmt.Errorf("a snapshot of %d masters has no tiers", masters)
		}
		if b.ctx.Err() != nil {
			return nil, b.ctx.Err()
		}
	}
	return took, nil
}

// plan lays out masters as newSite does.
func (b *bench) plan(masters, datacenters int) (*zone.Plan, error) {
	s, err := b.newSite(fmt.Sprintf("plan-%d", masters), masters, datacenters)
	if err != nil {
		return nil, err
	}
	t := &topology.Topology{
		Local: localPriority, Remote: remotePriority, PuppetDBPort: 8081,
		CamasterName: camasterName, Camaster: s.masters[0].host + ".",
	}
	for i := range datacenters {
		name := fmt.Sprintf("datacenter%d", i+1)
		t.Datacenters = append(t.Datacenters, topology.Datacenter{Name: name, Domain: name + "." + zoneName + "."})
	}
	for _, m := range s.masters {
		t.Masters = append(t.Masters, topology.Master{
			Host: m.host + ".", Datacenter: fmt.Sprintf("datacenter%d", m.datacenter), Port: 8140, Weight: 10, CA: true,
		})
	}
	static, err := zone.Read(strings.NewReader(s.zonefile()), zoneName+".", "zone")
	if err != nil {
		return nil, err
	}
	plan, _, err := zone.NewPlan(t, 5, []zone.Static{static})
	return plan, err
}

// process measures real nodes of one size: one without probes for its memory,
// then one with, whose masters change.
func (b *bench) process(masters, datacenters int, limit time.Duration) error {
	s, err := b.newSite(fmt.Sprintf("size-%d", masters), masters, datacenters)
	if err != nil {
		return err
	}
	label := fmt.Sprintf("%d masters in %d datacenters", masters, datacenters)
	n, err := b.startNode(s, fmt.Sprintf("size-%d-quiet", masters), nodeAddress, nodeOptions{probeOff: true})
	if err != nil {
		return err
	}
	if err := b.memoryRow(n, label+", `probe off`"); err != nil {
		return err
	}
	n.end()

	stubs, err := s.startStubs()
	if err != nil {
		return err
	}
	defer func() {
		for _, m := range stubs {
			m.Close()
		}
	}()
	if n, err = b.startNode(s, fmt.Sprintf("size-%d", masters), nodeAddress, nodeOptions{}); err != nil {
		return err
	}
	defer n.end()
	if err := b.builds(n, stubs, label, limit); err != nil {
		return err
	}
	return b.memoryRow(n, label+", probed every second")
}

// memoryRow reports the memory now and at most, and the CPU that the node
// takes without a question.
func (b *bench) memoryRow(n *node, label string) error {
	const watched = 3 * time.Second
	before, err := n.cpuTime()
	if err != nil {
		return err
	}
	if err := b.pause(watched); err != nil {
		return err
	}
	after, err := n.cpuTime()
	if err != nil {
		return err
	}
	now, err := n.residentBytes("VmRSS")
	if err != nil {
		return err
	}
	most, err := n.residentBytes("VmHWM")
	if err != nil {
		return err
	}
	if b.profile {
		page, err := fetch(b.ctx, fmt.Sprintf("http://%v/debug/pprof/heap", n.pprof))
		if err != nil {
			return fmt.Errorf("profiling: %w", err)
		}
		if err := os.WriteFile(filepath.Join(b.dir, n.name+"-heap.pprof"), page, 0o644); err != nil {
			return err
		}
	}
	b.report.row(label+": resident memory", fmt.Sprintf("%d MB, at most %d MB, %.1f %% of a core", now>>20, most>>20, 100*float64(after-before)/float64(watched)),
		"", fmt.Sprintf("at most < %d MB", maxResident>>20), true, most < maxResident)
	return nil
}

func (b *bench) pause(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// builds changes the verdicts of some masters and reports what the node says of
// its builds.
func (b *bench) builds(n *node, stubs []*stub.Master, label string, limit time.Duration) error {
	const changed, turns = 10, 4
	before, err := b.buildTimes(n)
	if err != nil {
		return err
	}
	wait := b.profiled("builds", 4*time.Second, n)
	for range turns {
		chosen := rand.Perm(len(stubs))[:changed]
		for _, i := range chosen {
			stubs[i].SetStatus(http.StatusServiceUnavailable, "stopping")
		}
		if err := b.awaitDown(n, changed); err != nil {
			return err
		}
		for _, i := range chosen {
			stubs[i].SetStatus(http.StatusOK, "running")
		}
		if err := b.awaitDown(n, 0); err != nil {
			return err
		}
	}
	if err := wait(); err != nil {
		return err
	}
	after, err := b.buildTimes(n)
	if err != nil {
		return err
	}
	h := after.since(before)
	if h.count == 0 {
		return fmt.Errorf("%s built nothing", n.name)
	}
	mean := h.sum / time.Duration(h.count)
	b.report.row(fmt.Sprintf("%s, as a process with the disk (%d builds)", label, h.count),
		fmt.Sprintf("mean %s, half below %s, 90 %% below %s", short(mean), short(h.within(0.5)), short(h.within(0.9))),
		"", limitCell("mean", limit), limit > 0, mean <= limit)
	return nil
}

// awaitDown waits until the node says that so many masters are down. Answers
// would not tell: of so many targets they list only the first.
func (b *bench) awaitDown(n *node, want int) error {
	end := time.Now().Add(watchLimit)
	for {
		page, err := fetch(b.ctx, fmt.Sprintf("http://%v/metrics", n.metrics))
		if err != nil {
			return err
		}
		down := 0
		for line := range strings.Lines(string(page)) {
			if strings.HasPrefix(line, "coredns_puppetsrv_master_up{") && strings.HasSuffix(line, "} 0\n") {
				down++
			}
		}
		if down == want {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s has %d masters down after %v, want %d", n.name, down, watchLimit, want)
		}
		if err := b.pause(200 * time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *bench) buildTimes(n *node) (histogram, error) {
	page, err := fetch(b.ctx, fmt.Sprintf("http://%v/metrics", n.metrics))
	if err != nil {
		return histogram{}, err
	}
	return parseHistogram(string(page), "coredns_puppetsrv_snapshot_build_duration_seconds")
}

// histogram is a classic Prometheus histogram of durations.
type histogram struct {
	count   int
	sum     time.Duration
	buckets map[time.Duration]int // cumulative, by upper bound; without +Inf
}

// since returns what was added after before.
func (h histogram) since(before histogram) histogram {
	d := histogram{count: h.count - before.count, sum: h.sum - before.sum, buckets: make(map[time.Duration]int)}
	for bound, n := range h.buckets {
		d.buckets[bound] = n - before.buckets[bound]
	}
	return d
}

// within is the smallest bound that holds a share of all, from 0 to 1; the
// largest duration if none does.
func (h histogram) within(share float64) time.Duration {
	for _, bound := range slices.Sorted(maps.Keys(h.buckets)) {
		if float64(h.buckets[bound]) >= share*float64(h.count) {
			return bound
		}
	}
	return math.MaxInt64
}
