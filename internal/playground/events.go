package main

import (
	"errors"
	"fmt"
)

// next handles the next thing that happens.
func (s *supervisor) next() {
	select {
	case got := <-s.signals:
		s.printf("\n%v: ", got)
		s.ending = true
	case event := <-s.events:
		switch e := event.(type) {
		case answered:
			s.onAnswered(e.process, e.seen)
		case late:
			s.onLate(e.process, e.err)
		case exited:
			s.onExited(e.process)
		case settled:
			s.onSettled(e.err)
		case revoked:
			s.onRevoked(e)
		case request:
			s.onRequest(e)
		}
	}
}

func (s *supervisor) onAnswered(p *process, seen string) {
	w, waited := s.waiting[p.name]
	if s.processes[p.name] != p || !waited {
		return
	}
	delete(s.waiting, p.name)
	u := s.unit(p.name)
	s.printf("  %-6s %-*s  %s  pid %-7d %s\n", u.role, s.widest(), u.name, u.about, p.pid(), seen)
	if s.started {
		s.publish()
	}
	if w.then == "" {
		for _, r := range w.askers {
			r.answer(fmt.Sprintf("%s answers again (pid %d)", p.name, p.pid()))
		}
		return
	}
	if err := s.launch(s.unit(w.then), waiting{askers: w.askers}); err != nil {
		for _, r := range w.askers {
			r.refuse(err.Error())
		}
	}
}

// widest is the length of the longest name.
func (s *supervisor) widest() (n int) {
	for _, u := range s.units {
		n = max(n, len(u.name))
	}
	return n
}

func (s *supervisor) onSettled(err error) {
	s.settling = false
	if err != nil {
		for _, m := range s.layout.masters {
			s.keepLogs = append(s.keepLogs, m.memberName())
		}
		name := s.layout.first().memberName()
		s.fail(fmt.Errorf("%s did not become the camaster within %v: %w\n  %s ends:\n%s",
			s.layout.camaster, s.timeout, err, logPath(s.dir, name), logTail(s.dir, name)))
		return
	}
	s.printf("  %s is the camaster: its CA is open, and the others follow it\n", s.layout.camaster)
}

func (s *supervisor) onRevoked(r revoked) {
	if r.err != nil {
		r.request.refuse(r.err.Error())
		return
	}
	s.printf("the certificate of %s is revoked by the CA on %s: %s says so\n", r.request.Name, r.by, s.layout.crlPath())
	r.request.answer(fmt.Sprintf("the certificate of %s is revoked; the nodes know within a second", r.request.Name))
}

func (s *supervisor) onLate(p *process, err error) {
	w, waited := s.waiting[p.name]
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
	for _, r := range w.askers {
		r.refuse(err.Error())
	}
}

func (s *supervisor) onExited(p *process) {
	if s.processes[p.name] != p {
		return
	}
	w := s.waiting[p.name]
	delete(s.waiting, p.name)
	var how string
	if signal := p.killed(); signal != "" {
		how = fmt.Sprintf("%s (pid %d) was killed by %s.", p.name, p.pid(), signal)
	} else if s.started && p.err == nil {
		how = fmt.Sprintf("%s (pid %d) ended in good order, as when SIGTERM asks it to.", p.name, p.pid())
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
	switch s.unit(p.name).role {
	case "master":
		tell = "Ask again: within a second every answer has it last."
	case "member":
		tell = "No answer changes by that: nobody says now how its host is."
	}
	s.printf("%s\n  %s Start it again: %s\n", how, tell, s.again("-start", p.name))
	for _, r := range w.askers {
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
		s.onStart(r)
	case "revoke":
		if !s.started {
			r.refuse("the playground is still starting")
			return
		}
		s.wg.Go(func() {
			by, err := s.layout.revoke(s.ctx, r.Name)
			s.send(revoked{r, by, err})
		})
	default:
		r.refuse(fmt.Sprintf("unknown command %q", r.Command))
	}
}

// onStart starts what does not run of a node, or of a master and its member: the member
// first, since a camaster that comes back must not sign before its member has decided.
func (s *supervisor) onStart(r request) {
	u := s.unit(r.Name)
	switch {
	case u.name == "":
		r.refuse(fmt.Sprintf("there is no node or master %q: names are as in %s", r.Name, stateName))
		return
	case !s.started:
		r.refuse("the playground is still starting")
		return
	}
	p := s.processes[u.name]
	member := s.unit(u.name + "-member")
	memberDown := member.name != "" && !s.processes[member.name].running()
	if w, starting := s.waiting[member.name]; starting && !memberDown {
		if !p.running() {
			w.then = u.name
		}
		w.askers = append(w.askers, r)
		s.waiting[member.name] = w
		return
	}
	var err error
	switch {
	case p.running() && memberDown:
		err = s.launch(member, waiting{askers: []request{r}})
	case p.running():
		err = fmt.Errorf("%s runs (pid %d)", u.name, p.pid())
	case memberDown:
		err = s.launch(member, waiting{then: u.name, askers: []request{r}})
	default:
		err = s.launch(u, waiting{askers: []request{r}})
	}
	if err != nil {
		r.refuse(err.Error())
	}
}
