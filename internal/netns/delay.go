//go:build linux

package netns

import (
	"fmt"
	"strings"
	"time"
)

// Delay holds back every packet that the host sends by d, and loses a part of them,
// from 0 to 1. Without both, it is as before. The test is skipped where the kernel
// has no netem.
func (h *Host) Delay(d time.Duration, loss float64) {
	t := h.net.t
	t.Helper()
	if d < 0 || loss < 0 || loss > 1 {
		t.Fatalf("host %s: a delay of %v and a loss of %g: want none or more, and 0 to 1", h.Name, d, loss)
	}
	// A discipline that is there can be replaced, not added; one that is not cannot be
	// deleted. pfifo is what an interface of its kind may always have.
	args := []string{"-n", h.namespace, "qdisc", "replace", "dev", device, "root"}
	if d == 0 && loss == 0 {
		args = append(args, "pfifo", "limit", "1000")
	} else {
		args = append(args, "netem", "limit", "10000", "delay", fmt.Sprintf("%dus", d.Microseconds()), "loss", fmt.Sprintf("%g%%", loss*100))
	}
	if err := run("", "tc", args...); err != nil {
		if strings.Contains(err.Error(), "qdisc kind is unknown") || strings.Contains(err.Error(), "executable file not found") {
			t.Skipf("SKIPPED: delay and loss need tc and the kernel's netem: %v", err)
		}
		t.Fatalf("host %s: %v", h.Name, err)
	}
}
