package main

import "os"

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
		Dir: s.dir, CA: l.caPath(), SSLDir: l.sslDir(), Operator: operator, PID: os.Getpid(),
	}
	add := func(p processState) {
		if process := s.processes[p.Name]; process != nil && process.running() {
			p.PID, p.Start = process.pid(), process.start
		}
		st.Processes = append(st.Processes, p)
	}
	for _, n := range l.nodes {
		p := processState{
			Role: "node", Name: n.name, Host: n.host, Datacenter: n.datacenter, Address: n.dns.String(),
			Admin: []string{"unix://" + l.socketPath(n.name), "https://" + n.admin.String()}, Gossip: n.gossip.String(),
		}
		if n.metrics.Port() != 0 {
			p.Metrics = n.metrics.String()
		}
		if n.ready.Port() != 0 {
			p.Ready = n.ready.String()
		}
		add(p)
	}
	for _, m := range l.masters {
		p := processState{
			Role: "master", Name: m.name, Host: m.host, Service: m.service, Datacenter: m.datacenter, Address: m.address.String(),
			CA: m.ca, HostCRL: l.hostCRLPath(m),
		}
		if m.ca {
			p.CADir = l.cadirPath(m)
		}
		add(p)
	}
	if !l.members {
		return st
	}
	for _, m := range l.masters {
		p := processState{
			Role: "member", Name: m.memberName(), Host: m.host, Datacenter: m.datacenter, Address: m.member.String(),
			Admin: []string{"unix://" + l.socketPath(m.name)}, Gossip: m.gossip.String(), CA: m.ca,
		}
		if m.metrics.Port() != 0 {
			p.Metrics = m.metrics.String()
		}
		add(p)
	}
	return st
}
