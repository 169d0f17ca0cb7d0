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
		case request:
			s.onRequest(e)
		}
	}
}

func (s *supervisor) onAnswered(p *process, seen string) {
	askers, waited := s.waiting[p.name]
	if s.processes[p.name] != p || !waited {
		return
	}
	delete(s.waiting, p.name)
	u := s.unit(p.name)
	s.printf("  %-6s %-3s  %s  pid %-7d %s\n", u.role, u.name, u.about, p.pid(), seen)
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
	case "revoke":
		if !s.started {
			r.refuse("the playground is still starting")
		} else if err := s.authority.revoke(r.Name); err != nil {
			r.refuse(err.Error())
		} else {
			s.printf("the certificate of %s is revoked: %s says so\n", r.Name, s.layout.crlPath())
			r.answer(fmt.Sprintf("the certificate of %s is revoked; the nodes know within a second", r.Name))
		}
	default:
		r.refuse(fmt.Sprintf("unknown command %q", r.Command))
	}
}
