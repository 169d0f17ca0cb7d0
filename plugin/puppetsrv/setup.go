package puppetsrv

import (
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/puppetsrv/puppetsrv/internal/node"
)

func init() { plugin.Register(pluginName, setup) }

// setup parses; what lives longer than a parse begins in OnStartup. CoreDNS runs
// the new instance's OnStartup while the old one still serves, and if anything
// then fails only the old one's OnRestartFailed is run, also when it is the old
// one that could not be stopped and the new one serves.
func setup(c *caddy.Controller) error {
	cfg, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	p := newPuppetsrv(cfg)
	site := dnsserver.GetConfig(c)
	site.AddPlugin(func(next plugin.Handler) plugin.Handler {
		p.Next = next // runs once per zone and socket
		return p
	})

	owner := ownerOf(c)
	var handle *node.Handle
	var notify *notifier
	c.OnStartup(func() error {
		for _, w := range cfg.warnings {
			log.Warningf("%s", w)
		}
		node.Sweep(alive)
		h, err := node.Acquire(cfg.node, owner)
		if err != nil {
			return plugin.Error(pluginName, cfg.place(err).errf("%s", err))
		}
		handle = h
		p.node.Store(h.Node)
		if x, ok := site.Handler("transfer").(*transfer.Transfer); ok {
			notify = newNotifier(h, x)
		}
		return nil
	})
	c.OnShutdown(func() error {
		if notify != nil {
			notify.stop()
		}
		if handle != nil {
			handle.Release()
		}
		return nil
	})
	c.OnRestartFailed(func() error { node.Sweep(alive); return nil })
	return nil
}

// ownerKey is where an instance keeps who it is as an owner of runtimes.
type ownerKey struct{}

// ownerOf returns the same value for all blocks of an instance.
func ownerOf(c *caddy.Controller) any {
	if o := c.Get(ownerKey{}); o != nil {
		return o
	}
	o := new(struct{ _ byte })
	c.Set(ownerKey{}, o)
	return o
}

// alive reports whether an owner's instance still is one. CoreDNS takes those
// that failed to start, and those that were stopped, off its list.
func alive(owner any) bool {
	return slices.ContainsFunc(caddy.Instances(), func(i *caddy.Instance) bool {
		i.StorageMu.RLock()
		defer i.StorageMu.RUnlock()
		return i.Storage[ownerKey{}] == owner
	})
}
