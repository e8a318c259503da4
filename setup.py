import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
# Read, not imported: that would need aioamqp before it is installed.
VERSION = re.search(r"^__version__ = '(.+)'$", (HERE / 'aioqueue.py').read_text(), re.M)

setup(
    name='aioqueue',
    version=VERSION[1],
    description='A single-file task queue for asyncio on RabbitMQ',
    long_description=(HERE / 'README.rst').read_text(),
    long_description_content_type='text/x-rst',
    license='MIT',
    py_modules=['aioqueue'],
    python_requires='>=3.11',
    install_requires=['aioamqp>=0.15,<0.16', 'msgpack>=1.0'],
    extras_require={
        'test': [
            'docutils', 'fastapi', 'httpx', 'hypothesis', 'pytest', 'pytest-asyncio',
            'pytest-timeout', 'trustme', 'uvicorn',
            'uvloop; sys_platform != "win32"',
        ],
        'lint': ['build', 'mypy', 'ruff', 'setuptools', 'twine'],
    },
    project_urls={
        'Source': 'https://github.com/aioqueue/aioqueue',
        'Issues': 'https://github.com/aioqueue/aioqueue/issues',
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
