package main

import "time"

// stopGrace is how long a process may take to end when asked, before it is
// killed.
const stopGrace = 5 * time.Second

// stopAll ends every process, the nodes first, so that none sees its masters go.
// Members leave their roles as they are.
func (s *supervisor) stopAll() {
	stopped := false
	for _, role := range []string{"node", "member", "master"} {
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
