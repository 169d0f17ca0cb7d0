//go:build linux

package stack

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// Remove takes a host that NewAgent has made out of the network. Its files stay. A stack
// that is left running could not make another one in its place otherwise.
func (s *Stack) Remove(h *Host) error {
	if err := netns.Kill(h.Host); err != nil {
		return err
	}
	// The other half of the link goes with it, before the command returns.
	for _, args := range [][]string{{"-n", h.Namespace(), "link", "del", "eth0"}, {"netns", "del", h.Namespace()}} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("removing %s: %w: %s", h.Short, err, out)
		}
	}
	delete(s.hosts, h.Short)
	s.order = slices.DeleteFunc(s.order, func(o *Host) bool { return o == h })
	return nil
}
