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

// unlock tells of what has changed, and gives up the lock.
func (d *Daemon) unlock() {
	d.tell()
	<-d.lock
}

// news is what somebody waits for. The zero value is ready. It is guarded by the lock.
type news struct{ told chan struct{} } // nil while nobody waits

func (n *news) tell() {
	if n.told != nil {
		close(n.told)
		n.told = nil
	}
}

func (n *news) next() <-chan struct{} {
	if n.told == nil {
		n.told = make(chan struct{})
	}
	return n.told
}

// wake has everybody ask again what is to be done who waits for something of these instances. Whoever changes what others wait for calls
// it, before or after, but with the lock held all the time: they are told when the lock is given up, and decide when they hold it.
func (d *Daemon) wake(of ...*instance) {
	for _, in := range of {
		if !in.changed {
			in.changed = true
			d.changed = append(d.changed, in)
		}
	}
}

// wakeAll is wake for what concerns everybody, such as the phase and the clock.
func (d *Daemon) wakeAll() {
	d.wake(d.instances...)
	d.all.tell()
}

// tell publishes the status of instances that have changed, and wakes who waits for them: their own goroutines, activation where it is
// to do something for them, and orders.
//
// No wake-up is lost. Who waits has decided with the lock held, and takes the news before giving it up (wait): every change after that
// decision closes what it waits for. So it is enough that wait names all that the decision depends on.
func (d *Daemon) tell() {
	if len(d.changed) == 0 || d.phase == left {
		return
	}
	d.publish()
	for _, in := range d.changed {
		in.changed = false
		in.news.tell()
		if len(in.record.Activation) > 0 || in.record.unproven() != nil {
			d.owed.tell()
		}
	}
	d.changed = d.changed[:0]
	d.some.tell()
}

// wait gives up the lock until there is news, or such that concerns everybody, until done ends, or until has come (zero: never), at most
// for longestRest.
func (d *Daemon) wait(until time.Time, of *news, done <-chan struct{}) {
	d.tell() // first: who waits knows of its own changes
	now, some, all := time.Now(), of.next(), d.all.next()
	<-d.lock
	defer d.lock.take()
	timer := time.NewTimer(earlier(until, now.Add(longestRest)).Sub(now))
	defer timer.Stop()
	select {
	case <-some:
	case <-all:
	case <-done:
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
			d.some.tell()
		}()
		f()
	}()
}
