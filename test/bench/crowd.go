package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

// measureEditors has four editors work on the file for a while, a quarter of their edits also changing the secret, while
// rotations go on, and counts the updates that were lost outside the time in which nlserver itself was writing: it reads
// and rewrites the whole file, and nobody can help what comes in between.
func measureEditors(ctx context.Context, c *container.Container, while time.Duration) ([]figure, error) {
	file := c.File(instance)
	document, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	crowd := &editors.Crowd{Path: file, Styles: editors.AllStyles, Meddle: func(d []byte) []byte {
		return container.Spoil(d, "authIMSTAClientSecret", "@bm90IHRoZSBzZWNyZXQ=")
	}}
	if err := os.WriteFile(file, editors.Prepare(document, len(crowd.Styles)), 0o640); err != nil {
		return nil, err
	}
	d, err := running(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	limited, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	rotated := make(chan int)
	go func() {
		n := 0
		asker := c.Asker()
		for wait(limited, 2*time.Second) == nil {
			if _, _, err := c.Rotate(ctx, instance); err == nil {
				n++
				asker.Sync(limited)
			}
		}
		rotated <- n
	}()
	result, err := crowd.Run(limited)
	rotations := <-rotated
	if err != nil {
		return nil, err
	}
	windows, err := c.Windows()
	if err != nil {
		return nil, err
	}
	outside := 0
	for _, loss := range result.Losses {
		if !windows.Overlap(loss.Written, loss.Noticed) {
			outside++
		}
	}
	status, err := c.Asker().Status(ctx)
	if err != nil {
		return nil, err
	}
	figures := []figure{{
		fmt.Sprintf("updates of 4 editors lost in %s outside nlserver's own windows, of %d (with %d rotations, %d reverts)",
			while, result.Edits, rotations, status.Instances[0].RevertedTotal),
		fmt.Sprintf("%d (%d inside)", outside, len(result.Losses)-outside), "0",
	}}
	if outside > 0 {
		return figures, fmt.Errorf("%w: %d updates: %+v", errLost, outside, result.Losses)
	}
	return figures, nil
}
