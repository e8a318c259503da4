import pathlib
import re
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
# Read, not imported: that would need aioamqp before it is installed.
VERSION = re.search(r"^__version__ = '(.+)'$", (HERE / 'aioqueue.py').read_text(), re.M)


class BuildWithStubs(build_py):
    """A single module can't say that it is typed; a package of stubs beside it can.

    https://typing.python.org/en/latest/spec/distributing.html#stub-only-packages
    """

    def run(self):
        super().run()
        stubs = pathlib.Path(self.build_lib, 'aioqueue-stubs')
        stubs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / 'aioqueue.py', stubs / '__init__.pyi')


setup(
    name='aioqueue',
    version=VERSION[1],
    description='A single-file task queue for asyncio on RabbitMQ',
    long_description=(HERE / 'README.rst').read_text(),
    long_description_content_type='text/x-rst',
    license='MIT',
    py_modules=['aioqueue'],
    cmdclass={'build_py': BuildWithStubs},
    python_requires='>=3.11',
    install_requires=['aioamqp>=0.15,<0.16', 'msgpack>=1.0.2'],
    extras_require={
        'test': [
            'build', 'docutils', 'fastapi', 'httpx', 'hypothesis', 'mypy', 'pytest',
            'pytest-asyncio', 'pytest-timeout', 'setuptools>=70.1', 'trustme',
            'uvicorn', 'uvloop; sys_platform != "win32"',
        ],
        'lint': ['ruff', 'twine'],
    },
    keywords='asyncio task queue rabbitmq amqp rpc worker',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Framework :: AsyncIO',
        'Intended Audience :: Developers',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: System :: Distributed Computing',
    ],
)
