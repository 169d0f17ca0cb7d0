package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

const (
	steadyRate  = 50000 // questions a second
	steadyTime  = 20 * time.Second
	churnEvery  = 150 * time.Millisecond
	reloadEvery = time.Second
)

// steady offers a load while verdicts change and the Corefile is reloaded.
func (b *bench) steady() error {
	b.report.title(fmt.Sprintf("%d questions per second offered for %v, masters changing and dying, SIGUSR1 every %v", steadyRate, steadyTime, reloadEvery))
	s, err := b.newSite("steady", 4, 2)
	if err != nil {
		return err
	}
	stubs, err := s.startStubs()
	if err != nil {
		return err
	}
	defer func() {
		for _, m := range stubs {
			m.Close()
		}
	}()
	o := nodeOptions{probe: "interval 200ms timeout 1s", ttl: 5}
	n, err := b.startNode(s, "steady", nodeAddress, o)
	if err != nil {
		return err
	}
	before, err := b.buildTimes(n)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(b.ctx, steadyTime)
	defer cancel()
	var done sync.WaitGroup
	var t tally
	var loadErr, churnErr error
	done.Go(func() { t, loadErr = openLoop(ctx, steadyRate, offers(s, n)) })
	done.Go(func() { churnErr = s.churn(ctx, stubs) })
	reloads, reloadErr := s.reloads(ctx, n, o)
	done.Wait()
	for _, err := range []error{loadErr, churnErr, reloadErr, b.ctx.Err(), n.alive()} {
		if err != nil {
			return err
		}
	}
	after, err := b.buildTimes(n)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err
	}
	complete := bytes.Count(text, []byte("Reloading complete"))
	verdicts := bytes.Count(text, []byte(".: master ")) // one line each
	if verdicts == 0 {
		return fmt.Errorf("%s: no verdict changed: nothing was shown", n.name)
	}
	b.wrongRow(fmt.Sprintf("wrong answers, over %d reloads, %d verdicts, %d snapshots", complete, verdicts, after.count-before.count), t, complete == reloads)
	b.offeredRow(t, steadyRate)
	return nil
}

// churn changes a master at a time until ctx ends: busy or running, dead or
// started again.
func (s *site) churn(ctx context.Context, stubs []*stub.Master) error {
	busy := make([]bool, len(stubs))
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		i := rand.N(len(stubs))
		if rand.N(3) == 0 {
			stubs[i].Close()
			m, err := s.startStub(i)
			if err != nil {
				return err
			}
			stubs[i], busy[i] = m, false
			continue
		}
		if busy[i] = !busy[i]; busy[i] {
			stubs[i].SetStatus(http.StatusServiceUnavailable, "stopping")
		} else {
			stubs[i].SetStatus(http.StatusOK, "running")
		}
	}
}

// reloads has the node reload its Corefile until ctx ends: in turn an unchanged
// one and one that makes another runtime. It returns how often.
func (s *site) reloads(ctx context.Context, n *node, o nodeOptions) (int, error) {
	count := 0
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return count, nil
		case <-tick.C:
		}
		if count%2 == 1 {
			o.ttl = 11 - o.ttl
			if err := s.write(n, o); err != nil {
				return count, err
			}
		}
		if err := n.signal(syscall.SIGUSR1); err != nil {
			return count, err
		}
		count++
	}
}
