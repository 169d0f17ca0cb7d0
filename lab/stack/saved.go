//go:build linux

package stack

import (
	"io"
	"path/filepath"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// Saved is a stack that another process goes on with. It can be written as JSON.
type Saved struct {
	Dir, Source string
	Net         netns.Saved
	Config      Config
	Agents      map[string]int
	Hosts       []savedHost
}

type savedHost struct {
	Short, Datacenter string
	Boots             int
	Services          []string
}

// Save is the stack as it is now; nothing may be cut.
func (s *Stack) Save() Saved {
	saved := Saved{Dir: s.Dir, Source: s.Source, Net: s.net.Save(), Config: s.config, Agents: s.agents}
	for _, h := range s.order {
		saved.Hosts = append(saved.Hosts, savedHost{h.Short, h.Datacenter, h.boots, h.services})
	}
	return saved
}

// Resume is a stack that another process has made, and which does not end with t.
func Resume(t netns.T, saved Saved, log io.Writer) *Stack {
	s := &Stack{
		Dir: saved.Dir, Bin: filepath.Join(saved.Source, "bin"), Source: saved.Source,
		net: netns.Resume(t, saved.Net), log: log, hosts: make(map[string]*Host), config: saved.Config, agents: saved.Agents,
	}
	for i, sh := range saved.Hosts {
		h := &Host{
			Host: s.net.Hosts()[i], Short: sh.Short, Datacenter: sh.Datacenter,
			s: s, dir: filepath.Join(s.Dir, "hosts", sh.Short), boots: sh.Boots, services: sh.Services,
		}
		s.hosts[h.Short] = h
		s.order = append(s.order, h)
	}
	return s
}
