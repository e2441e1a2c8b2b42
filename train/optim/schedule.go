package optim

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Schedule gives the learning rate of each step, as transformers'
// lr_scheduler_type does: linear warm-up from 0, then constant, or linear or
// cosine decay to 0 at the last step. There constant has no warm-up and
// constant_with_warmup has; here both have the warm-up that is asked for.
type Schedule struct {
	Type   string
	LR     float64
	Warmup int
	Total  int
}

// ScheduleTypes lists the schedules.
func ScheduleTypes() []string {
	return []string{"constant", "constant_with_warmup", "linear", "cosine"}
}

// Validate returns an error if the schedule cannot be followed.
func (s Schedule) Validate() error {
	if !slices.Contains(ScheduleTypes(), s.Type) {
		return fmt.Errorf("no schedule %q (there are: %s)", s.Type, strings.Join(ScheduleTypes(), ", "))
	}
	if s.Warmup < 0 {
		return fmt.Errorf("warm-up of %d steps", s.Warmup)
	}
	return nil
}

// At returns the learning rate of a step, counted from 1.
func (s Schedule) At(step int) float64 {
	done := float64(step - 1)
	if step <= s.Warmup {
		return s.LR * done / float64(s.Warmup)
	}
	rest := (done - float64(s.Warmup)) / math.Max(1, float64(s.Total-s.Warmup))
	switch s.Type {
	case "linear":
		return s.LR * math.Max(0, 1-rest)
	case "cosine":
		return s.LR * math.Max(0, 0.5*(1+math.Cos(math.Pi*rest)))
	}
	return s.LR
}
