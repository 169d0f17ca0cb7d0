package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// supervisor starts the units, tells what becomes of them and ends them. All
// of its fields belong to the goroutine that calls supervise; the others send
// events.
type supervisor struct {
	options
	layout  layout
	units   []unit
	out     io.Writer
	signals <-chan os.Signal

	events chan any        // answered, late, exited, settled, revoked or request
	ctx    context.Context // done when nobody takes events any more
	wg     sync.WaitGroup

	processes map[string]*process // the last one of each unit
	waiting   map[string]waiting  // units that do not answer yet
	settling  bool                // the first camaster's role is not open yet
	started   bool                // everything has answered once
	ending    bool
	stoppers  []request // who asked to stop
	failure   error     // why it ends, if not because it was asked
	keepLogs  []string
}

type (
	answered struct {
		process *process
		seen    string
	}
	late struct {
		process *process
		err     error
	}
	exited  struct{ process *process }
	settled struct{ err error }
	revoked struct {
		request request
		by      string // the CA's master
		err     error
	}
)

// waiting is what happens when a unit answers: another one is started, or who asked for
// it is told.
type waiting struct {
	then   string // a unit's name
	askers []request
}

// supervise runs a playground until it is stopped or fails to start.
func supervise(o options, out io.Writer) (err error) {
	runtime.LockOSThread() // what startProcess asks for
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as under nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	// `make run | head` must not end the playground before it has cleaned up.
	// Ignoring the signal would make the processes ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	l, err := newLayout(o)
	if err != nil {
		return err
	}
	if info, err := os.Stat(o.puppetsrv); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("no puppetsrv binary at %s: build it with `make build`, or say where it is with -puppetsrv", o.puppetsrv)
	}
	if info, err := os.Stat(o.member); o.members && (err != nil || info.IsDir() || info.Mode()&0o111 == 0) {
		return fmt.Errorf("no puppetsrv-member binary at %s: build it with `make build`, say where it is with -member, or do without by -members=false", o.member)
	}
	dir, leftover, err := openRundir(o.dir)
	if running := (*runningError)(nil); errors.As(err, &running) {
		return fmt.Errorf("%w: stop it with `%s`, or run another one beside it with -dir, and -base %v", err, o.again("-stop"), o.nextBase())
	}
	if err != nil {
		return err
	}
	s := &supervisor{
		options: o, layout: l, out: out, signals: signals,
		events:    make(chan any),
		processes: make(map[string]*process), waiting: make(map[string]waiting),
	}
	defer func() {
		err = errors.Join(err, dir.close(s.keepLogs...))
		if len(s.keepLogs) > 0 {
			s.printf("kept: what failed is in the logs in %s\n", filepath.Join(s.dir, logDirName))
		}
	}()
	if leftover != 0 {
		if err := dir.clearLeftover(leftover, out); err != nil {
			return err
		}
	} else if err := dir.clear(); err != nil { // logs kept the last time
		return err
	}
	if s.layout.sockets, err = l.openSockets(); err != nil {
		return err
	}
	s.units = s.layout.units(o)
	return s.run()
}

// run does everything between making the run directory and removing it.
func (s *supervisor) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	control, err := listenControl(s.dir, func(r request) { s.send(r) })
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		control.close()
		s.wg.Wait()
		for _, r := range s.stoppers {
			r.answer(fmt.Sprintf("the playground in %s is stopped: nothing of it is left", s.dir))
		}
	}()
	defer s.stopAll()

	if err := s.checkEndpoints(s.layout.endpoints()); err != nil {
		return err
	}
	if err := s.layout.prepare(); err != nil {
		return err
	}
	s.printf("puppetsrv playground: zone %s, two datacenters on this machine's loopback, one cluster\n", zoneName)
	// A member comes before its master, as on a booting host: nothing opens before it
	// has decided. The nodes come last: they must not see a master down that only starts.
	for _, role := range []string{"member", "master", "node"} {
		s.bringUp(role)
	}
	if s.layout.members && !s.ending {
		s.appoint()
	}
	if !s.ending {
		s.started = true
		s.publish()
		pids := make(map[string]int)
		for name, p := range s.processes {
			pids[name] = p.pid()
		}
		s.printf("%s", s.layout.guide(s.options, pids))
	}
	for !s.ending {
		s.next()
	}
	return s.failure
}

// bringUp starts the units of a role side by side and returns when all answer.
func (s *supervisor) bringUp(role string) {
	for _, u := range s.units {
		if u.role == role && !s.ending {
			if err := s.launch(u, waiting{}); err != nil {
				s.fail(err)
			}
		}
	}
	for len(s.waiting) > 0 && !s.ending {
		s.next()
	}
}

// appoint has the first camaster set, and returns when its role is open.
func (s *supervisor) appoint() {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	s.settling = true
	s.wg.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		last := errors.New("not asked yet")
		for {
			err := s.layout.appoint(ctx)
			if err == nil {
				s.send(settled{})
				return
			}
			if ctx.Err() == nil {
				last = err
			}
			select {
			case <-ctx.Done():
				s.send(settled{last})
				return
			case <-ticker.C:
			}
		}
	})
	for s.settling && !s.ending {
		s.next()
	}
}

// launch starts a unit's process and has its answer waited for.
func (s *supervisor) launch(u unit, w waiting) error {
	p, err := startProcess(s.dir, u.name, u.command...)
	if err != nil {
		return err
	}
	s.processes[u.name] = p
	s.waiting[u.name] = w
	s.wg.Go(func() {
		p.wait()
		s.send(exited{p})
	})
	running := func() []node { return s.layout.nodes } // they start side by side
	if s.started {
		running = s.runningNodes()
	}
	first := !s.started
	s.wg.Go(func() { s.await(u, p, first, running) })
	return nil
}

// runningNodes is a function that any goroutine may call: of the nodes that run now,
// those that still do.
func (s *supervisor) runningNodes() func() []node {
	processes := make(map[string]*process)
	for _, n := range s.layout.nodes {
		if p := s.processes[n.name]; p.running() {
			processes[n.name] = p
		}
	}
	return func() (nodes []node) {
		for _, n := range s.layout.nodes {
			if p := processes[n.name]; p != nil && p.running() {
				nodes = append(nodes, n)
			}
		}
		return nodes
	}
}

// await sends one answered or late, unless the process ends before.
func (s *supervisor) await(u unit, p *process, first bool, running func() []node) {
	end := time.Now().Add(s.timeout)
	ctx, cancel := context.WithDeadline(s.ctx, end)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	last := errors.New("not asked yet")
	for {
		seen, err := u.check(ctx, first, running())
		if err == nil {
			s.send(answered{p, seen})
			return
		}
		// Else it is only the end of the wait, of which a dial may know before ctx does.
		if time.Now().Before(end) {
			last = err
		}
		select {
		case <-p.exited:
			return
		case <-ctx.Done():
			s.send(late{p, last})
			return
		case <-ticker.C:
		}
	}
}

// send gives an event to the supervisor, or drops it when it takes none.
func (s *supervisor) send(event any) {
	select {
	case s.events <- event:
	case <-s.ctx.Done():
		const stopping = "the playground is stopping"
		switch e := event.(type) {
		case request:
			e.refuse(stopping)
		case revoked:
			e.request.refuse(stopping)
		}
	}
}

// fail ends a playground that cannot start.
func (s *supervisor) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
	s.ending = true
}

func (s *supervisor) unit(name string) unit {
	for _, u := range s.units {
		if u.name == name {
			return u
		}
	}
	return unit{}
}

// printf writes for the person at the terminal, who may have closed it.
func (s *supervisor) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }
