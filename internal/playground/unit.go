package main

import (
	"context"
	"fmt"
)

// unit is a node, master or member that the supervisor keeps, whatever it does.
type unit struct {
	role, name string
	command    []string
	about      string // datacenter and address
	// check tells what it has seen when the unit answers as it should. nodes are
	// those that run.
	check func(ctx context.Context, first bool, nodes []node) (seen string, err error)
}

func (l layout) units(o options) []unit {
	var units []unit
	for _, m := range l.masters {
		if !l.members {
			break
		}
		units = append(units, unit{
			role: "member", name: m.memberName(),
			command: []string{o.member, "run", "--config", l.memberPath(m)},
			about:   fmt.Sprintf("%s  %-15v", m.datacenter, m.member),
			check: func(ctx context.Context, first bool, _ []node) (string, error) {
				return l.checkMember(ctx, m, first)
			},
		})
	}
	for _, m := range l.masters {
		u := unit{
			role: "master", name: m.name,
			command: []string{
				o.self, "master", "-listen", m.address.String(), "-cert", l.certPath(m.name), "-key", l.keyPath(m.name),
				"-localcacert", l.caPath(), "-hostcrl", l.hostCRLPath(m),
			},
			about: fmt.Sprintf("%s  %-15v", m.datacenter, m.address),
		}
		answers := "running"
		if m.ca {
			u.command = append(u.command, "-cadir", l.cadirPath(m))
			answers += ", CA-capable"
		}
		u.check = func(ctx context.Context, first bool, _ []node) (string, error) {
			seen := answers
			if first && m.host == l.camaster {
				seen += ", the camaster"
			}
			return seen, l.checkMaster(ctx, m)
		}
		units = append(units, u)
	}
	for _, n := range l.nodes {
		units = append(units, unit{
			role: "node", name: n.name,
			command: []string{o.puppetsrv, "-conf", l.corefilePath(n)},
			about:   fmt.Sprintf("%s  %-15v", n.datacenter, n.dns),
			check: func(ctx context.Context, first bool, nodes []node) (string, error) {
				return l.checkNode(ctx, n, first, nodes)
			},
		})
	}
	return units
}
