package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// The targets of a flip, from the moment that its PUT is sent.
const (
	maxFlipP99 = 100 * time.Millisecond // until the last node answers
	maxFlipAPI = time.Second            // until the API returns
)

const (
	flipNodes   = 5
	flipMasters = 6     // of which every second is CA-capable
	flipRate    = 10000 // questions a second over all nodes, for the flips under load
)

// Flips are a random time apart, so that they fall anywhere between two rounds of
// gossip. Each node allows 20 writes a second and 40 at once (admin.Limits).
const (
	flipPause  = 60 * time.Millisecond
	flipJitter = 100 * time.Millisecond
)

// flipTimes is what flips took until the last node followed.
type flipTimes struct {
	api      times // until the API returned
	camaster times // until the last node answered the new CNAME
	ca       times // and the new _x-puppet-ca
	each     times // the CNAME, of every node
	disk     times // to write such a file, beside it
	unacked  int   // that not every node had on disk when the API returned
	early    times // of those whose API returned before the last node answered: by how much
}

// flipReport is what the section has found.
type flipReport struct {
	quiet, secure, loaded flipTimes
	load                  tally
	ending                ending
}

// flips measures how soon all nodes of a cluster answer another camaster.
func (b *bench) flips() error {
	secure, loaded := max(b.flipCount/10, 1), max(b.flipCount/4, 1)
	b.report.title(fmt.Sprintf("flips of the camaster, %d nodes, by each one's API in turn, from the PUT; against: the disk alone", flipNodes))
	r, err := b.measureFlips(flipNodes, b.flipCount, secure, loaded)
	if err != nil {
		return err
	}
	b.flipRows("unix socket", r.quiet, true)
	b.flipRows("https", r.secure, false)
	load := fmt.Sprintf("%d k/s questions", flipRate/1000)
	b.flipRows(load, r.loaded, false)
	b.wrongRow(load+": wrong answers", r.load, true)
	b.offeredRow(r.load, flipRate)
	b.report.row("histories at the end", fmt.Sprintf("equal, with %d writes, as are serials; %d conflicts", r.ending.kept, r.ending.conflicts),
		"", "0 conflicts", true, r.ending.conflicts == 0)
	return nil
}

// flipRows reports flips. The targets are for many of them, on a machine that has
// nothing else to do.
func (b *bench) flipRows(label string, t flipTimes, judged bool) {
	row := func(what string, took times, against, target string, ok bool) {
		if !judged {
			target = ""
		}
		b.report.row(fmt.Sprintf("%s: %s (%d times)", label, what, len(t.api)), took.String(), against, target, judged && target != "", ok)
	}
	p99 := "p99 <= " + maxFlipP99.String()
	row("last node answers the CNAME", t.camaster, "writing such a file: "+t.disk.String(), p99, quantile(t.camaster, 0.99) <= maxFlipP99)
	row("last node answers _x-puppet-ca", t.ca, "", p99, quantile(t.ca, 0.99) <= maxFlipP99)
	row("any node answers the CNAME", t.each, "", "", true)
	row("the API returns", t.api, fmt.Sprintf("%d before the last answer, half by %s", len(t.early), short(median(t.early))), "max <= "+maxFlipAPI.String(), slices.Max(t.api) <= maxFlipAPI)
	b.report.row(label+": not acknowledged by all", fmt.Sprint(t.unacked), "", "0", true, t.unacked == 0)
}

// measureFlips starts a cluster and flips its camaster: over unix sockets, over
// https, and under load.
func (b *bench) measureFlips(nodes, quiet, secure, loaded int) (r flipReport, err error) {
	s, err := b.newSite("flips", flipMasters, 2)
	if err != nil {
		return r, err
	}
	stubs, err := s.startStubs()
	if err != nil {
		return r, err
	}
	defer func() {
		for _, m := range stubs {
			m.Close()
		}
	}()
	c, err := b.newCluster(s, nodes)
	if err != nil {
		return r, err
	}
	defer c.close()
	if r.quiet, err = b.flipMany(c, quiet, (*member).unix); err != nil {
		return r, err
	}
	if r.secure, err = b.flipMany(c, secure, (*member).https); err != nil {
		return r, fmt.Errorf("over https: %w", err)
	}
	if r.loaded, r.load, err = b.flipLoaded(c, loaded); err != nil {
		return r, fmt.Errorf("under load: %w", err)
	}
	r.ending, err = b.ending(c)
	return r, err
}

func (m *member) unix() *admin.Client  { return m.local }
func (m *member) https() *admin.Client { return m.remote }

// flipLoaded flips while all nodes are asked.
func (b *bench) flipLoaded(c *cluster, count int) (t flipTimes, load tally, err error) {
	var nodes []*node
	for _, m := range c.members {
		nodes = append(nodes, m.node)
	}
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	var loadErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		load, loadErr = openLoop(ctx, flipRate, offers(c.site, nodes...))
	}()
	t, err = b.flipMany(c, count, (*member).unix)
	stop()
	<-done
	return t, load, errors.Join(err, loadErr)
}

// flipMany makes so many flips, by the API of each node in turn.
func (b *bench) flipMany(c *cluster, count int, client func(*member) *admin.Client) (t flipTimes, err error) {
	for range count {
		if err := b.pause(flipPause + rand.N(flipJitter)); err != nil {
			return t, err
		}
		m := c.members[len(c.versions)%len(c.members)]
		if err := b.flip(c, client(m), &t); err != nil {
			return t, fmt.Errorf("flip %d, by %s: %w", len(c.versions)+1, m.host, err)
		}
		if err := m.writeBeside(&t); err != nil {
			return t, err
		}
	}
	return t, nil
}

// flip makes the next CA-capable master the camaster and adds what it took.
func (b *bench) flip(c *cluster, client *admin.Client, t *flipTimes) error {
	to := c.next()
	var expected []expectation
	for _, m := range c.members {
		expected = append(expected, expectation{m.node, camasterName, dns.TypeA, aliased(to + ".")})
	}
	for i, m := range c.members {
		name := fmt.Sprintf("_x-puppet-ca._tcp.datacenter%d.%s.", i%c.site.datacenters+1, zoneName)
		expected = append(expected, expectation{m.node, name, dns.TypeSRV, alone(to + ".")})
	}
	client.Close() // a new connection, as for each call of puppetsrvctl
	type outcome struct {
		result admin.Result
		took   time.Duration
		err    error
	}
	returned := make(chan outcome, 1)
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	start := time.Now()
	go func() {
		r, err := client.SetCamaster(ctx, admin.SetCamaster{Host: to, Reason: "bench", Expect: c.version(), Wait: admin.WaitAll})
		returned <- outcome{r, time.Since(start), err}
		if err != nil {
			stop() // nobody will answer it
		}
	}()
	took, err := await(ctx, start, expected)
	o := <-returned
	if o.err != nil {
		return o.err
	}
	if err != nil {
		return err
	}
	c.versions = append(c.versions, o.result.Write.Version)
	camaster, ca := took[:len(c.members)], took[len(c.members):]
	last := slices.Max(camaster)
	t.api = append(t.api, o.took)
	t.camaster = append(t.camaster, last)
	t.ca = append(t.ca, slices.Max(ca))
	t.each = append(t.each, camaster...)
	if !o.result.Met || o.result.Acked != len(c.members) {
		t.unacked++
	}
	if o.took < last {
		t.early = append(t.early, last-o.took)
	}
	return nil
}

// next is the host that is to be the camaster after the flips so far: the first
// master is at the beginning, and every second is CA-capable.
func (c *cluster) next() string {
	able := (len(c.site.masters) + 1) / 2
	return c.site.masters[(len(c.versions)+1)%able*2].host
}

// version is the one of the camaster's register, as the API said last.
func (c *cluster) version() string {
	if len(c.versions) == 0 {
		return "0" // never written
	}
	return c.versions[len(c.versions)-1]
}

// writeBeside times what a node does to keep its registers, in its own directory
// while nobody else writes: with it, a flip's time can be read on a noisy disk.
func (m *member) writeBeside(t *flipTimes) error {
	dir := m.cluster.site.state(m.node)
	data, err := os.ReadFile(filepath.Join(dir, "registers.json"))
	if err != nil {
		return err
	}
	start := time.Now()
	if err := store.WriteFile(filepath.Join(dir, "beside"), data); err != nil {
		return err
	}
	t.disk = append(t.disk, time.Since(start))
	return nil
}
