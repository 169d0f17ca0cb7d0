package puppetsrv

import (
	"fmt"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/puppetsrv/puppetsrv/internal/node"
)

func init() { plugin.Register(pluginName, setup) }

// setup parses; what lives longer than a parse begins in OnStartup. CoreDNS runs
// the new instance's OnStartup while the old one still serves, and if the new one
// then fails to listen only the old one's OnRestartFailed is run.
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

	var handle *node.Handle
	var notify *notifier
	c.OnStartup(func() error {
		for _, w := range cfg.warnings {
			log.Warningf("%s", w)
		}
		h, err := node.Acquire(cfg.node)
		if err != nil {
			return plugin.Error(pluginName, fmt.Errorf("%w: give each server a `state` of its own", err))
		}
		handle = h
		p.node.Store(h.Node)
		if x, ok := site.Handler("transfer").(*transfer.Transfer); ok {
			notify = newNotifier(h.Node, x)
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
	c.OnRestart(func() error { node.BeginReload(); return nil })
	c.OnRestartFailed(func() error { node.AbortReload(); return nil })
	return nil
}
