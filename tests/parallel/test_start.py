"""Which process this is, the roll-call before a start, and the watch after it."""

import contextlib
import socket
import threading
import time

import pytest

from launch.local import free_port
from vlc.errors import ConfigError, StartError
from vlc.parallel import EXIT_LOST, find_process_info, set_flags
from vlc.parallel.process_info import ProcessInfo, expand_hosts
from vlc.parallel.rendezvous import _hear, _send, rendezvous

SAME = {"config": "abc"}


def test_alone_where_nothing_is_told():
    assert find_process_info(env={}) == ProcessInfo()
    assert find_process_info(env={"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) == ProcessInfo()
    warned = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "WARNING: could not determine TPU worker number"}
    assert find_process_info(env=warned) == ProcessInfo()  # as a compiler for TPUs leaves it to what it starts
    assert find_process_info(env={"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}).count == 1  # salloc, srun --pty


def test_slurm_tells():
    env = {
        "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "gpu[07-08],big",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_JOB_ID": "123456", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    }  # fmt: skip
    process = find_process_info(env=env)
    assert (process.index, process.count, process.local_index, process.local_count) == (3, 5, 1, 2)
    assert process.hosts == ("gpu07", "gpu07", "gpu08", "gpu08", "big")
    assert process.coordinator == "gpu07:26912" and process.name(4) == "process 4 (big)"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", "a"),
        ("a,b", "a b"),
        ("a[1-3]", "a1 a2 a3"),
        ("a[08-10,3],b[1]x", "a08 a09 a10 a3 b1x"),
        ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
    ],
)
def test_hosts_are_expanded_as_slurm_writes_them(text, hosts):
    assert expand_hosts(text) == hosts.split()


def test_a_job_set_counts_through_its_jobs():
    env = {
        "VLC_COORDINATOR": "run-slice-0-0.run:12620", "VLC_PROCESSES": "8", "JOB_COMPLETION_INDEX": "1",
        "VLC_GROUP": "1", "VLC_GROUP_SIZE": "4",
    }  # fmt: skip
    process = find_process_info(env=env)
    assert (process.index, process.count, process.address) == (5, 8, ("run-slice-0-0.run", 12620))


def test_tpu_slices_count_through():
    env = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}
    assert find_process_info(env=env) == ProcessInfo(1, 2, "a:12620", "the TPU's worker number", ("a", "b"))
    env |= {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "c:8080"}
    process = find_process_info(env=env)
    assert (process.index, process.count, process.coordinator) == (3, 4, "c:12620")


def test_flags_come_first():
    assert find_process_info("h:1", 2, 1, env={"VLC_COORDINATOR": "x:2"}) == ProcessInfo(1, 2, "h:1", "--process")


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (("h:1", 2, -1), {}, "belong together"),
        (("h:1", 2, 2), {}, "number 2 of 2 .--process.; numbers go from 0 to 1"),
        (("h", 2, 0), {}, "must be HOST:PORT"),
        ((), {"VLC_COORDINATOR": "h:1", "VLC_PROCESSES": "2"}, "JOB_COMPLETION_INDEX is not"),
        ((), {"VLC_COORDINATOR": "h:1", "VLC_PROCESSES": "two", "VLC_PROCESS": "0"}, 'VLC_PROCESSES is "two"'),
        ((), {"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES is set, but TPU_WORKER_ID is not"),
    ],
)
def test_half_a_place_is_refused(flags, env, said):
    with pytest.raises(ConfigError, match=said):
        find_process_info(*flags, env=env)


class Crew:
    """Processes of a run, each a thread here; `left` collects who left, and why."""

    def __init__(self, count, **changes):
        self.port, self.count = free_port(), count
        self.watches, self.errors, self.left = {}, {}, {}
        self.threads = []
        self.changes = changes

    def come(self, *indices, must_agree=SAME, timeout=3.0, count=0):
        for index in indices:
            thread = threading.Thread(target=self._run, args=(index, must_agree, timeout, count or self.count))
            thread.start()
            self.threads.append(thread)
        return self

    def _run(self, index, must_agree, timeout, count):
        process = ProcessInfo(index, count, f"localhost:{self.port}")

        def leave(message, status):
            self.left[index] = (message, status)

        try:
            self.watches[index] = rendezvous(process, must_agree, timeout=timeout, heartbeat_timeout=1.0, leave=leave)
        except StartError as error:
            self.errors.setdefault(index, []).append(str(error))

    def joined(self):
        for thread in self.threads:
            thread.join(20)
        return self

    def wait_for(self, *indices):
        end = time.monotonic() + 10
        while not set(indices) <= self.left.keys() and time.monotonic() < end:
            time.sleep(0.02)
        return self.left


def test_all_come_and_part_in_peace():
    crew = Crew(3).come(2, 1, 0).joined()
    assert sorted(crew.watches) == [0, 1, 2] and not crew.errors
    crew.watches[1].close()
    time.sleep(1.5)  # longer than the silence that is allowed: who said good-bye is not missed
    crew.watches[0].close(), crew.watches[2].close()
    assert not crew.left


def test_who_is_missing_is_named_everywhere():
    crew = Crew(4).come(0, 2, timeout=1.0).joined()
    for index in (0, 2):
        assert "2 of 4 processes did not come within 1 s: process 1, process 3" in crew.errors[index][0]
        assert "There are: process 0" in crew.errors[index][0]


def test_of_many_that_are_missing_a_few_are_named():
    crew = Crew(2000).come(0, timeout=0.5).joined()
    said = crew.errors[0][0]
    assert "1999 of 2000 processes did not come within 0 s: process 1, process 2" in said
    assert "process 5, and 1994 more" in said and len(said) < 500


def test_the_roll_call_of_many_long_names_is_heard():
    """The names together are longer than the longest message."""
    count, crew = 400, Crew(400)
    crew.come(0, timeout=20.0)
    hello = {"count": count, "about": SAME, "host": "h" * 250}
    connections = []
    while len(connections) < count - 1:
        with contextlib.suppress(OSError):
            connections.append(socket.create_connection(("localhost", crew.port), timeout=5))
            _send(connections[-1], {"hello": len(connections), **hello})
    assert all("go" in (_hear(connection, 20) or {}) for connection in connections)
    crew.joined().watches[0].close()
    for connection in connections:
        connection.close()


def test_without_process_0_the_others_say_so():
    crew = Crew(2).come(1, timeout=0.7).joined()
    assert "process 0 was not reached at localhost" in crew.errors[1][0]


def test_another_config_is_refused():
    crew = Crew(2).come(0).come(1, must_agree={"config": "xyz"}).joined()
    assert all("has another config than process 0: xyz instead of abc" in crew.errors[i][0] for i in (0, 1))


def test_another_count_and_the_same_number_twice_are_refused():
    crew = Crew(2).come(0).come(1, count=3).joined()
    assert "was started as one of 3 processes, process 0 as one of 2" in crew.errors[0][0]
    crew = Crew(3).come(0, 1, 1).joined()
    assert "Two processes say that they are number 1" in crew.errors[0][0]
    assert len(crew.errors[1]) == 2


def test_strangers_do_no_harm():
    crew = Crew(2).come(0)
    time.sleep(0.3)
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b'{"hello": 1}\n', b""):
        with socket.create_connection(("localhost", crew.port)) as stranger:
            stranger.sendall(words)
    crew.come(1).joined()
    assert sorted(crew.watches) == [0, 1]


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as taken:
        crew = Crew(2)
        crew.port = taken.getsockname()[1]
        crew.come(0, timeout=0.5).joined()
    assert "cannot listen on port" in crew.errors[0][0]


def test_a_closed_connection_is_a_lost_process():
    crew = Crew(3).come(0, 1, 2).joined()
    crew.watches[1].peers[0].shutdown(socket.SHUT_RDWR)  # as the system does for a process that is killed
    left = crew.wait_for(0, 2)
    assert all("process 1" in left[i][0] and "of 3 is gone" in left[i][0] and left[i][1] == EXIT_LOST for i in (0, 2))


def test_silence_is_a_lost_process():
    crew = Crew(3).come(0, 1, 2).joined()
    crew.watches[2]._closing.set()  # it neither beats nor closes: stopped, or the network is cut
    left = crew.wait_for(0, 1)
    assert all("has been silent for 1 s" in left[i][0] and "process 2" in left[i][0] for i in (0, 1))


def test_one_that_fails_tells_the_others_why():
    crew = Crew(3).come(0, 1, 2).joined()
    crew.watches[2].fail("The disk is full.", 2)
    left = crew.wait_for(0, 1)
    assert all("process 2" in left[i][0] and "stopped: The disk is full." in left[i][0] for i in (0, 1))
    assert {status for _, status in left.values()} == {2}


def test_last_words_are_heard_that_come_with_a_good_bye():
    """An answer about the step to stop after and the good-bye, read at once: else the others would wait for ever."""
    crew = Crew(2).come(0, 1).joined()
    crew.watches[0].stop.after(3)
    crew.watches[1].peers[0].sendall(b'{"stop": "request"}\n{"stop": "at", "step": 4}\n{"bye": true}\n')
    crew.watches[1]._closing.set()
    end = time.monotonic() + 5
    while crew.watches[0].stop._after is None and time.monotonic() < end:
        time.sleep(0.02)
    assert crew.watches[0].stop.after(4) and not crew.left
    crew.watches[0].close()


@pytest.mark.parametrize("wishing", [(0,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("ahead", [0, 3])
def test_all_stop_after_the_same_step(wishing, ahead):
    """Even where one has begun more steps than the others, and waits for them in a collective."""
    crew = Crew(3).come(0, 1, 2).joined()
    stopped, met = {}, threading.Barrier(3)

    def loop(index):
        for step in range(1, 200):
            if index != 1 or step > ahead:
                met.wait(10)
            if step == 5 and index in wishing:
                crew.watches[index].stop.request()
            time.sleep(0.002 * index)
            if crew.watches[index].stop.after(step):
                stopped[index] = step
                break
        for _ in range(ahead if index == 1 else 0):
            met.wait(10)

    loops = [threading.Thread(target=loop, args=(index,)) for index in range(3)]
    for thread in loops:
        thread.start()
    for thread in loops:
        thread.join(15)
    for watch in crew.watches.values():
        watch.close()
    assert len(stopped) == 3 and len(set(stopped.values())) == 1 and min(stopped.values()) >= 5
    assert not crew.left


def test_flags_are_added_and_the_users_own_win():
    env = {"XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false --mine"}
    set_flags(env, gpu=True, tpu=False)
    assert env["XLA_FLAGS"].endswith("--xla_gpu_enable_pipelined_all_gather=false --mine")
    assert env["XLA_FLAGS"].count("pipelined_all_gather") == 1 and "latency_hiding_scheduler=true" in env["XLA_FLAGS"]
    set_flags(env, gpu=False, tpu=True)
    assert "--xla_tpu_enable_async_collective_fusion=true" in env["LIBTPU_INIT_ARGS"]
    off = {"VLC_XLA_FLAGS": "off"}
    set_flags(off, gpu=True, tpu=True)
    assert off == {"VLC_XLA_FLAGS": "off"}
