package sync

import (
	"context"
	"time"
)

// lock is held by whoever decides, never by who acts or waits.
type lock chan struct{}

func (l lock) take() { l <- struct{}{} }

func (l lock) takeUntil(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unlock publishes what has changed, and gives up the lock.
func (d *Daemon) unlock() {
	if d.changed && d.phase < left {
		d.changed = false
		d.publish()
	}
	<-d.lock
}

// wakeAll has everybody who waits ask again what is to be done. Whoever changes what others wait for calls it.
func (d *Daemon) wakeAll() {
	d.changed = true
	close(d.news)
	d.news = make(chan struct{})
}

// wait gives up the lock until there are news, wake has an entry, or until has come (zero: never), at most for longestRest.
func (d *Daemon) wait(until time.Time, wake <-chan struct{}) {
	now, news := time.Now(), d.news
	d.unlock()
	defer d.lock.take()
	timer := time.NewTimer(earlier(until, now.Add(longestRest)).Sub(now))
	defer timer.Stop()
	select {
	case <-news:
	case <-wake:
	case <-timer.C:
	}
}

// spawn runs f in a goroutine that holds the lock.
func (d *Daemon) spawn(f func()) {
	d.running++
	go func() {
		d.lock.take()
		defer d.unlock()
		defer func() {
			d.running--
			d.wakeAll()
		}()
		f()
	}()
}
