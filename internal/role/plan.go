package role

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Plan says by which steps the services would become open, closed or standby, in the
// order in which that is done, and changes nothing. It waits for a step that is under
// way. The error is of those services that cannot become that; the steps are those of
// the others.
func (c *Controller) Plan(ctx context.Context, to State) ([]evidence.Step, error) {
	c.mu.Lock()
	version := c.decide().Version.String()
	c.mu.Unlock()
	order := slices.Clone(c.services)
	if to == Closed {
		slices.Reverse(order)
	}
	var list []evidence.Step
	var errs []error
	for _, s := range order {
		var steps []Step
		var failed error
		err := c.call(ctx, s, observeTime, func(ctx context.Context) {
			steps, failed = s.Plan(s.Observe(ctx), to)
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
			continue
		}
		for _, p := range steps {
			list = append(list, evidence.Step{Version: version, Service: s.Name(), Name: p.Name, State: stepPlanned, Detail: p.Detail})
		}
	}
	return list, errors.Join(errs...)
}
