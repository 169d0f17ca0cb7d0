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

// stopGrace is how long a process may take to end when asked, before it is
// killed.
const stopGrace = 5 * time.Second

// unit is a node or master that the supervisor keeps, whatever it does.
type unit struct {
	role, name string
	command    []string
	check      func(context.Context) error // nil when it answers as it should
	about      string                      // datacenter and address
	answers    string                      // what check has seen
}

func (l layout) units(o options) []unit {
	var units []unit
	for _, m := range l.masters {
		u := unit{
			role: "master", name: m.name,
			command: []string{o.self, "master", "-listen", m.address.String(), "-cert", l.certPath(m), "-key", l.keyPath(m)},
			check:   func(ctx context.Context) error { return l.checkMaster(ctx, m) },
			about:   fmt.Sprintf("%s  %-15v", m.datacenter, m.address),
			answers: "running",
		}
		if m.ca {
			u.command = append(u.command, "-ca")
			u.answers += ", CA-capable"
		}
		if m.host == l.camaster {
			u.answers += ", the camaster"
		}
		units = append(units, u)
	}
	for _, n := range l.nodes {
		units = append(units, unit{
			role: "node", name: n.name,
			command: []string{o.puppetsrv, "-conf", l.corefilePath(n)},
			check:   func(ctx context.Context) error { return l.checkNode(ctx, n) },
			about:   fmt.Sprintf("%s  %-15v", n.datacenter, n.dns),
			answers: "answers " + show(l.targetsOf(n.datacenter)),
		})
	}
	return units
}

// supervisor starts the units, tells what becomes of them and ends them. All
// of its fields belong to the goroutine that calls supervise; the others send
// events.
type supervisor struct {
	options
	layout  layout
	units   []unit
	out     io.Writer
	signals <-chan os.Signal

	events chan any        // answered, late, exited or request
	ctx    context.Context // done when nobody takes events any more
	wg     sync.WaitGroup

	processes map[string]*process  // the last one of each unit
	waiting   map[string][]request // units that do not answer yet, and who asked for them
	started   bool                 // everything has answered once
	ending    bool
	stoppers  []request // who asked to stop
	failure   error     // why it ends, if not because it was asked
	keepLogs  []string
}

type (
	answered struct{ process *process }
	late     struct {
		process *process
		err     error
	}
	exited struct{ process *process }
)

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
	dir, leftover, err := openRundir(o.dir)
	if running := (*runningError)(nil); errors.As(err, &running) {
		return fmt.Errorf("%w: stop it with `%s`, or run another one beside it with -dir, and -base %v", err, o.again("-stop"), o.nextBase())
	}
	if err != nil {
		return err
	}
	s := &supervisor{
		options: o, layout: l, units: l.units(o), out: out, signals: signals,
		events:    make(chan any),
		processes: make(map[string]*process), waiting: make(map[string][]request),
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
	s.printf("puppetsrv playground: zone %s, two datacenters on this machine's loopback\n", zoneName)
	// The nodes come last: they must not see a master down that only starts.
	for _, role := range []string{"master", "node"} {
		s.bringUp(role)
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
			if err := s.launch(u); err != nil {
				s.fail(err)
			}
		}
	}
	for len(s.waiting) > 0 && !s.ending {
		s.next()
	}
}

// launch starts a unit's process and has its answer waited for.
func (s *supervisor) launch(u unit, askers ...request) error {
	p, err := startProcess(s.dir, u.name, u.command...)
	if err != nil {
		return err
	}
	s.processes[u.name] = p
	s.waiting[u.name] = askers
	s.wg.Go(func() {
		p.wait()
		s.send(exited{p})
	})
	s.wg.Go(func() { s.await(u, p) })
	return nil
}

// await sends one answered or late, unless the process ends before.
func (s *supervisor) await(u unit, p *process) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	last := errors.New("not asked yet")
	for {
		err := u.check(ctx)
		if err == nil {
			s.send(answered{p})
			return
		}
		if ctx.Err() == nil { // else it is only the end of the wait
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
		if r, ok := event.(request); ok {
			r.refuse("the playground is stopping")
		}
	}
}

// next handles the next thing that happens.
func (s *supervisor) next() {
	select {
	case got := <-s.signals:
		s.printf("\n%v: ", got)
		s.ending = true
	case event := <-s.events:
		switch e := event.(type) {
		case answered:
			s.onAnswered(e.process)
		case late:
			s.onLate(e.process, e.err)
		case exited:
			s.onExited(e.process)
		case request:
			s.onRequest(e)
		}
	}
}

func (s *supervisor) onAnswered(p *process) {
	askers, waited := s.waiting[p.name]
	if s.processes[p.name] != p || !waited {
		return
	}
	delete(s.waiting, p.name)
	u := s.unit(p.name)
	s.printf("  %-6s %-3s  %s  pid %-7d %s\n", u.role, u.name, u.about, p.pid(), u.answers)
	if s.started {
		s.publish()
	}
	for _, r := range askers {
		r.answer(fmt.Sprintf("%s answers again (pid %d)", p.name, p.pid()))
	}
}

func (s *supervisor) onLate(p *process, err error) {
	askers, waited := s.waiting[p.name]
	if s.processes[p.name] != p || !waited {
		return
	}
	delete(s.waiting, p.name)
	s.keepLogs = append(s.keepLogs, p.name)
	err = fmt.Errorf("%s (pid %d) did not answer as it should within %v: %w\n  %s ends:\n%s",
		p.name, p.pid(), s.timeout, err, logPath(s.dir, p.name), logTail(s.dir, p.name))
	if !s.started {
		s.fail(err)
		return
	}
	s.printf("%v\n", err)
	for _, r := range askers {
		r.refuse(err.Error())
	}
}

func (s *supervisor) onExited(p *process) {
	if s.processes[p.name] != p {
		return
	}
	askers := s.waiting[p.name]
	delete(s.waiting, p.name)
	var how string
	if signal := p.killed(); signal != "" {
		how = fmt.Sprintf("%s (pid %d) was killed by %s.", p.name, p.pid(), signal)
	} else {
		s.keepLogs = append(s.keepLogs, p.name)
		how = fmt.Sprintf("%s (pid %d) ended by itself: %s.\n  %s ends:\n%s",
			p.name, p.pid(), p.ended(), logPath(s.dir, p.name), logTail(s.dir, p.name))
	}
	if !s.started {
		s.fail(errors.New(how))
		return
	}
	s.publish()
	tell := "Resolvers ask the other node now."
	if s.unit(p.name).role == "master" {
		tell = "Ask again: within a second every answer has it last."
	}
	s.printf("%s\n  %s Start it again: %s\n", how, tell, s.again("-start", p.name))
	for _, r := range askers {
		r.refuse(how)
	}
}

func (s *supervisor) onRequest(r request) {
	switch r.Command {
	case "stop":
		s.stoppers = append(s.stoppers, r)
		s.ending = true
		s.printf("\nasked to stop: ")
	case "start":
		u := s.unit(r.Name)
		p := s.processes[r.Name]
		switch {
		case u.name == "":
			r.refuse(fmt.Sprintf("there is no node or master %q: names are as in %s", r.Name, stateName))
		case !s.started:
			r.refuse("the playground is still starting")
		case p.running():
			r.refuse(fmt.Sprintf("%s runs (pid %d)", u.name, p.pid()))
		default:
			if err := s.launch(u, r); err != nil {
				r.refuse(err.Error())
			}
		}
	default:
		r.refuse(fmt.Sprintf("unknown command %q", r.Command))
	}
}

// fail ends a playground that cannot start.
func (s *supervisor) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
	s.ending = true
}

// stopAll ends every process, the nodes first, so that none sees its masters go.
func (s *supervisor) stopAll() {
	stopped := false
	for _, role := range []string{"node", "master"} {
		var ending []*process
		for _, u := range s.units {
			if p := s.processes[u.name]; p != nil && u.role == role && p.running() {
				ending = append(ending, p)
				p.terminate()
			}
		}
		grace := time.NewTimer(stopGrace)
		for _, p := range ending {
			stopped = true
			s.printf("%s ", p.name)
			for p.running() {
				select {
				case <-p.exited:
				case <-s.signals: // a second Ctrl-C
					killAll(ending)
				case <-grace.C:
					killAll(ending)
				case e := <-s.events:
					if r, ok := e.(request); ok && r.Command == "stop" {
						s.stoppers = append(s.stoppers, r)
					} else if ok {
						r.refuse("the playground is stopping")
					}
				}
			}
		}
		grace.Stop()
	}
	if stopped {
		s.printf("stopped.\n")
	}
}

func killAll(processes []*process) {
	for _, p := range processes {
		p.kill()
	}
}

// publish writes playground.json.
func (s *supervisor) publish() {
	if err := s.state().write(); err != nil {
		s.printf("%v\n", err)
	}
}

func (s *supervisor) state() state {
	l := s.layout
	st := state{
		Version: 1, Zone: zoneName, Targets: l.targets, Camaster: l.camaster,
		Dir: s.dir, CA: l.caPath(), PID: os.Getpid(),
	}
	add := func(p processState) {
		if process := s.processes[p.Name]; process != nil && process.running() {
			p.PID, p.Start = process.pid(), process.start
		}
		st.Processes = append(st.Processes, p)
	}
	for _, n := range l.nodes {
		p := processState{Role: "node", Name: n.name, Host: n.host, Datacenter: n.datacenter, Address: n.dns.String()}
		if n.metrics.Port() != 0 {
			p.Metrics = n.metrics.String()
		}
		if n.ready.Port() != 0 {
			p.Ready = n.ready.String()
		}
		add(p)
	}
	for _, m := range l.masters {
		add(processState{Role: "master", Name: m.name, Host: m.host, Service: m.service, Datacenter: m.datacenter, Address: m.address.String(), CA: m.ca})
	}
	return st
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
