"""Start and stop RabbitMQ nodes for development: what `make rabbit` runs.

    python3 .ci/rabbit.py start PORT [NODE] [CONFIG]
    python3 .ci/rabbit.py stop [NODE]          without NODE: every node
    python3 .ci/rabbit.py ctl NODE ARGUMENT... rabbitmqctl of that node
    python3 .ci/rabbit.py cluster PORT NODE    three nodes, on PORT, PORT+1, PORT+2

Needs only the standard library. Everything a node writes is below .rabbit/NODE/.
"""

import glob
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

HOME = pathlib.Path(__file__).resolve().parent.parent / '.rabbit'
BOOT_DEADLINE = 120  # seconds until a node that was started has to answer
# An epmd (Erlang's port mapper) of our own, so that `stop` leaves nothing behind and
# meets nobody else's nodes.
EPMD_PORT = os.environ.get('ERL_EPMD_PORT', '4370')
QUIET = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


def speaks_amqp(port: int) -> bool:
    """Send AMQP's protocol header; a broker answers with a method frame (type 1)."""
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=5) as peer:
            peer.sendall(b'AMQP\x00\x00\x09\x01')
            return peer.recv(1) == b'\x01'
    except OSError:
        return False


def sbin() -> str | None:
    """The folder of RabbitMQ's own scripts.

    Debian's /usr/sbin/rabbitmq-server is a wrapper that only root and the user
    rabbitmq may run; the scripts it calls run as anybody.
    """
    found = shutil.which('rabbitmq-server') or ''
    for folder in (
        '/usr/lib/rabbitmq/bin',
        *sorted(glob.glob('/usr/lib/rabbitmq/lib/*/sbin'), reverse=True),
        *sorted(glob.glob('/opt/rabbitmq*/sbin'), reverse=True),
        os.path.dirname(os.path.realpath(found)) if found else '',
    ):
        if folder and os.access(os.path.join(folder, 'rabbitmq-server'), os.X_OK):
            return folder
    return None


def environment(node: str, port: int | None = None) -> dict[str, str]:
    folder = HOME / node
    return {
        **os.environ,
        'HOME': str(HOME),  # Erlang keeps its cookie there: one for all our nodes
        'ERL_EPMD_PORT': EPMD_PORT,
        'ERL_EPMD_ADDRESS': '127.0.0.1',
        'RABBITMQ_CONF_ENV_FILE': '/dev/null',  # not the settings of the whole machine
        'RABBITMQ_NODENAME': f'{node}@localhost',
        'RABBITMQ_MNESIA_BASE': str(folder / 'data'),
        'RABBITMQ_LOG_BASE': str(folder / 'log'),
        'RABBITMQ_PID_FILE': str(folder / 'pid'),
        'RABBITMQ_CONFIG_FILE': str(folder / 'rabbitmq.conf'),
        'RABBITMQ_ADVANCED_CONFIG_FILE': str(folder / 'advanced.config'),
        'RABBITMQ_ENABLED_PLUGINS_FILE': str(folder / 'enabled_plugins'),
        **({'RABBITMQ_DIST_PORT': str(port + 20000)} if port else {}),
        # Schedulers that spin while idle take the processor from those they wait for.
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '+sbwt none +sbwtdcpu none +sbwtdio none'
        ' -kernel inet_dist_use_interface {127,0,0,1}',
    }


def ctl(node: str, *arguments: str, **output: int) -> int:
    command = [f'{sbin()}/rabbitmqctl', '-n', f'{node}@localhost', *arguments]
    return subprocess.run(command, env=environment(node), **output).returncode


def launch(node: str, port: int, config: str = '') -> subprocess.Popen[bytes]:
    folder = HOME / node
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f'listeners.tcp.1 = 127.0.0.1:{port}', 'disk_free_limit.absolute = 9MB']
    if config:
        settings.append(pathlib.Path(config).read_text())
    (folder / 'rabbitmq.conf').write_text('\n'.join(settings) + '\n')
    (folder / 'enabled_plugins').write_text('[].\n')
    with open(folder / 'output', 'w') as output:
        return subprocess.Popen(
            [f'{sbin()}/rabbitmq-server'],
            env=environment(node, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_up(
    node: str, port: int, server: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + BOOT_DEADLINE
    while not speaks_amqp(port):
        ended = server and server.poll() is not None
        if ended or time.monotonic() > deadline:
            sys.exit(f'RabbitMQ: {node} did not start: see {HOME}/{node}, docker logs')
        time.sleep(0.1)
    print(f'RabbitMQ: started {node}, it answers on port {port}', flush=True)


def start_node(node: str, port: int, config: str = '') -> None:
    wait_until_up(node, port, launch(node, port, config))


def start_docker(node: str, port: int) -> None:
    (HOME / node).mkdir(parents=True, exist_ok=True)
    (HOME / node / 'container').write_text(f'aioqueue-{node}')
    subprocess.run(
        f'docker run --detach --rm --name aioqueue-{node} '
        f'--publish 127.0.0.1:{port}:5672 rabbitmq:4'.split(),
        check=True,
    )
    wait_until_up(node, port)


def docker_runs() -> bool:
    found = shutil.which('docker') is not None
    return found and subprocess.run(['docker', 'info'], **QUIET).returncode == 0


def apt(package: str) -> None:
    """Install a package of Debian's, as root or with sudo."""
    print(f'{package}: not found, installing it with apt-get', flush=True)
    # RUNLEVEL=1 keeps it from starting a RabbitMQ for the whole machine.
    get = ['env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1', 'apt-get', '-qq']
    if os.geteuid() != 0:
        get.insert(0, 'sudo')
    quiet = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.DEVNULL}
    install = ['install', '-y', '--no-install-recommends', package]
    for command in ['update'], install:
        subprocess.run([*get, *command], check=True, **quiet)


def install() -> None:
    """Install RabbitMQ with the system's package manager."""
    if shutil.which('apt-get') and (os.geteuid() == 0 or shutil.which('sudo')):
        apt('rabbitmq-server')
    elif shutil.which('brew'):
        print('RabbitMQ: not found, installing it with brew', flush=True)
        subprocess.run(['brew', 'install', 'rabbitmq'], check=True)
    else:
        sys.exit(
            'RabbitMQ: not found. Install rabbitmq-server, start Docker, or run this '
            'as root (or with sudo) where apt-get is.'
        )


def start(port: int, node: str = '', config: str = '') -> None:
    node = node or f'aioqueue-{port}'
    if speaks_amqp(port):
        print(f'RabbitMQ: using the broker that answers on port {port}')
    elif sbin():
        start_node(node, port, config)
    elif docker_runs():
        start_docker(node, port)
    else:
        install()
        start(port, node, config)


def stop_node(node: str) -> None:
    folder = HOME / node
    try:
        if (folder / 'container').exists():
            container = (folder / 'container').read_text()
            subprocess.run(['docker', 'rm', '--force', container], check=False)
        elif (folder / 'pid').exists():
            pid = int((folder / 'pid').read_text())
            deadline = time.monotonic() + 30
            while runs(pid):
                late = time.monotonic() > deadline
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                time.sleep(0.1)
    except ProcessLookupError:
        pass  # it ended meanwhile: stopped is what was asked for
    shutil.rmtree(folder, ignore_errors=True)
    print(f'RabbitMQ: stopped {node}')


def runs(pid: int) -> bool:
    """Whether the process is still ours; its number may belong to another by now."""
    try:
        command = pathlib.Path(f'/proc/{pid}/cmdline').read_text()
    except OSError:  # no such process, or no /proc
        ps = ['ps', '-o', 'args=', '-ww', '-p', str(pid)]
        command = subprocess.run(ps, stdout=subprocess.PIPE, text=True).stdout
    return str(HOME) in command  # Erlang is told its home


def stop(node: str = '') -> None:
    for folder in sorted(HOME.glob('*/')):
        if not node or folder.name == node:
            stop_node(folder.name)
    if not any(HOME.glob('*/')):
        epmd = shutil.which('epmd') or next(
            iter(glob.glob('/usr/lib/erlang/erts-*/bin/epmd')), None
        )
        if epmd:  # refuses by itself while a node is registered
            subprocess.run([epmd, '-port', EPMD_PORT, '-kill'], **QUIET)
        shutil.rmtree(HOME, ignore_errors=True)


def cluster(port: int, node: str) -> None:
    """Start three nodes and join them: NODE-1, NODE-2, NODE-3 on PORT, +1, +2."""
    if not sbin():
        install()
    nodes = [(f'{node}-{number}', port + number - 1) for number in (1, 2, 3)]
    servers = [(*each, launch(*each)) for each in nodes if not speaks_amqp(each[1])]
    for server in servers:
        wait_until_up(*server)
    for number in (2, 3):
        join = f'join_cluster {node}-1@localhost'
        for command in 'stop_app', 'reset', join, 'start_app':
            if ctl(f'{node}-{number}', *command.split(), **QUIET):
                sys.exit(f'RabbitMQ: {command} failed on {node}-{number}')
    print(f'RabbitMQ: a cluster of three, ports {port} to {port + 2}')


if __name__ == '__main__':
    command, *arguments = sys.argv[1:]
    if command == 'start':
        start(int(arguments[0]), *arguments[1:])
    elif command == 'stop':
        stop(*arguments)
    elif command == 'cluster':
        cluster(int(arguments[0]), arguments[1])
    elif command == 'apt':
        apt(arguments[0])
    elif command == 'ctl':
        sys.exit(ctl(*arguments))
